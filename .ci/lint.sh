#!/usr/bin/env bash
# Runs the linters of .golangci.yml on all modules, for the packages of this system and without building for another.
# The linter is built once, into the user's cache folder.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v2.15.0
folder=${XDG_CACHE_HOME:-$HOME/.cache}/shoal/golangci-lint-$version

[ -x "$folder/golangci-lint" ] || {
	echo "building golangci-lint $version into $folder (once, some minutes)"
	GOBIN=$folder GOFLAGS='' GOWORK=off go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
}

# One run for all modules of the workspace loads what they share once.
mapfile -t folders < <(go work edit -json | sed -n 's/.*"DiskPath": "\(.*\)".*/\1/p')
"$folder/golangci-lint" run --timeout 30m "$@" "${folders[@]/%//...}"
