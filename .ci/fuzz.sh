#!/usr/bin/env bash
# Runs each fuzz target of the module in turn, each for the time given, and names those that found something.
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=${1:-30s}

failed=()
for package in $(go list work); do
	# Only a package's test binary knows its targets; -list prints them among other lines.
	listing=$(go test -list '^Fuzz' "$package")
	for target in $(grep '^Fuzz' <<<"$listing" || true); do
		echo "--- $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$package" || failed+=("$package $target")
	done
done

[ ${#failed[@]} -eq 0 ] || {
	printf 'make fuzz: failed: %s\n' "${failed[@]}" >&2
	exit 1
}
