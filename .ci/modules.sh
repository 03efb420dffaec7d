#!/usr/bin/env bash
# Checks that go.mod and go.sum of every module of the workspace are tidy, or rewrites them with the argument "fix".
#
# go mod tidy does not know workspaces and would look for the modules of this repository at the proxy, where the
# version that they require of each other appears with the release only. It therefore works on a copy of go.mod that
# replaces them by their folders.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
module=github.com/shoal-go/shoal
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

mapfile -t folders < <(go work edit -json | sed -n 's/.*"DiskPath": "\(.*\)".*/\1/p')

# tidy FOLDER writes the tidy go.mod and go.sum of a module to $copy.
tidy() {
	cd "$root/$1"
	cp go.mod "$copy/go.mod"
	: >"$copy/go.sum"
	[ ! -f go.sum ] || cp go.sum "$copy/go.sum"
	local folder replaced=()
	for folder in "${folders[@]}"; do
		[ "$folder" != "$1" ] || continue
		local path=$module${folder#.}
		replaced+=("$path")
		go mod edit -replace "$path=$root/$folder" "$copy/go.mod"
	done
	GOWORK=off go mod tidy -modfile "$copy/go.mod"
	for path in "${replaced[@]}"; do
		grep -q "^replace $path => \|^	$path => " go.mod || go mod edit -dropreplace "$path" "$copy/go.mod"
	done
}

status=0
for folder in "${folders[@]}"; do
	(tidy "$folder")
	for file in go.mod go.sum; do
		if [ "${1:-}" = fix ]; then
			cp "$copy/$file" "$folder/$file"
		elif ! diff -u "$folder/$file" "$copy/$file"; then
			echo "not tidy: $folder/$file; run .ci/modules.sh fix" >&2
			status=1
		fi
	done
done
exit $status
