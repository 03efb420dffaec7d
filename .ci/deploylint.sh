#!/usr/bin/env bash
# Prints the path of the program that checks the files of deploy, see cmd/shoal/testdata/deploylint. It is built once, into a cache folder:
# that takes some minutes, and its modules are fetched.
set -euo pipefail
cd "$(dirname "$0")/../cmd/shoal/testdata/deploylint"

cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/shoal-ci
mkdir -p "$cache"
exec 9>"$cache/lock-lint"
flock 9
program=$cache/lint-$(cat ./*.go go.mod go.sum <(go env GOVERSION) | sha256sum | cut -c 1-16)
if [ ! -x "$program" ]; then
	echo "building the linters of deploy into $program (once, some minutes)" >&2
	rm -f "$cache"/lint-*
	GOWORK=off GOFLAGS=-trimpath go build -ldflags='-s -w' -o "$program.new" . >&2
	mv "$program.new" "$program"
fi
echo "$program"
