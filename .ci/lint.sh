#!/usr/bin/env bash
# Runs the linters of .golangci.yml on every module, for the packages of this system and without building for another.
# The linter is built once, into the user's cache folder.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v2.15.0
folder=${XDG_CACHE_HOME:-$HOME/.cache}/shoal/golangci-lint-$version

[ -x "$folder/golangci-lint" ] || {
	echo "building golangci-lint $version into $folder (once, some minutes)"
	GOBIN=$folder GOFLAGS='' GOWORK=off go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
}

status=0
for folder_of_module in $(go work edit -json | sed -n 's/.*"DiskPath": "\(.*\)".*/\1/p'); do
	(cd "$folder_of_module" && "$folder/golangci-lint" run --timeout 10m "$@" ./...) || status=1
done
exit $status
