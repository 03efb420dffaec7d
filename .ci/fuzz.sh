#!/usr/bin/env bash
# Runs every fuzz target of the workspace, each for the time given and with one worker, as many targets side by side as there
# are cores. It prints a line for each target that has ended: executions, new and known inputs, and the bits of coverage
# (counters of edges of the program) of the seeds and at the end. Arguments:
# the time (30s), and a regular expression for the names of the targets.
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZTIME=${1:-30s}
pattern=${2:-.}
logs=$(mktemp -d)
export logs
trap 'rm -rf "$logs"' EXIT

# The sources are searched, because a test binary that could list its targets takes longer to build than to run.
targets=()
while read -r package folder; do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*testing\.F).*/\1/p' "$folder"/*_test.go 2>/dev/null || true); do
		[[ ! $package/$target =~ $pattern ]] || targets+=("$package $target")
	done
done < <(go list -f '{{.ImportPath}} {{.Dir}}' work)
[ ${#targets[@]} -gt 0 ] || {
	echo "make fuzz: no target matches $pattern" >&2
	exit 1
}

# fuzz_one PACKAGE TARGET runs a target and prints its line of the summary.
fuzz_one() {
	local log=$logs/${2}.$$ result=ok
	GODEBUG=fuzzdebug=1 go test -run '^$' -fuzz "^$2\$" -fuzztime "$FUZZTIME" -parallel 1 "$1" >"$log" 2>&1 || {
		result=FAILED
		cp "$log" "$log.failed"
	}
	awk -v name="${1#*shoal/} $2" -v result="$result" '
		match($0, /execs: [0-9]+/) { execs = substr($0, RSTART + 7, RLENGTH - 7) }
		match($0, /new interesting: [0-9]+/) { fresh = substr($0, RSTART + 17, RLENGTH - 17) }
		match($0, /total: [0-9]+/) { known = substr($0, RSTART + 7, RLENGTH - 7) }
		match($0, /initial coverage bits: [0-9]+/) { first = last = substr($0, RSTART + 23, RLENGTH - 23) }
		match($0, /total bits: [0-9]+/) { last = substr($0, RSTART + 12, RLENGTH - 12) }
		END {
			printf "%-6s %-50s %9d executions, %4d new inputs, %5d known, coverage %5d to %5d\n",
				result, name, execs, fresh, known, first, last
		}' "$log"
}
export -f fuzz_one

echo "make fuzz: ${#targets[@]} targets, $FUZZTIME each, $(nproc) at a time"
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -L 1 bash -c 'fuzz_one "$0" "$1"'

failed=("$logs"/*.failed)
[ ! -e "${failed[0]}" ] || {
	cat "${failed[@]}" >&2
	echo "make fuzz: ${#failed[@]} targets failed" >&2
	exit 1
}
