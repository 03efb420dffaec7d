#!/usr/bin/env bash
# Runs the linters of .golangci.yml on all modules, for the packages of this system and without building for another.
# The linter is built once, into the user's cache folder; with --if-built nothing is done where it is not there yet.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v2.15.0
folder=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/shoal/golangci-lint-$version

if [ "${1:-}" = --if-built ]; then
	shift
	[ -x "$folder/golangci-lint" ] || {
		echo "the linters are not built here, which takes some minutes: they are run once \"make lint\" has built them"
		exit 0
	}
fi

[ -x "$folder/golangci-lint" ] || {
	echo "building golangci-lint $version into $folder (once, some minutes)"
	GOBIN=$folder GOFLAGS=-trimpath GOWORK=off go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
}

# Results are found again by the paths of files and of what they import. From a path that all clones share, one clone finds
# those of another. A run beside another one has its own path.
tree=$folder/tree
exec 9>"$folder/lock"
if command -v flock >/dev/null && flock --nonblock 9; then
	ln -sfn "$PWD" "$tree"
	cd "$tree"
fi
export GOFLAGS="${GOFLAGS:-} -trimpath"

# One run for all modules of the workspace loads what they share once.
mapfile -t folders < <(go work edit -json | sed -n 's/.*"DiskPath": "\(.*\)".*/\1/p')
"$folder/golangci-lint" run --timeout 30m "$@" "${folders[@]/%//...}"
