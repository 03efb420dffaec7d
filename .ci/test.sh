#!/usr/bin/env bash
# Every check of the repository, one line a step. The first that fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."

# How long the stress tests keep going; short here, minutes before a release.
export SHOAL_STRESS=${SHOAL_STRESS:-5s}

current=""
trap '[ $? = 0 ] || echo "make test: failed at: $current" >&2' EXIT

step() {
	current=$1
	shift
	local start=$SECONDS
	"$@"
	printf -- '--- %-20s %4d s\n' "$current" $((SECONDS - start))
}

formatting() {
	# From GOROOT, so that it is the formatter of the toolchain that go.mod asks for.
	local gofmt unformatted
	gofmt=$(go env GOROOT)/bin/gofmt
	unformatted=$(find . -name node_modules -prune -o -name '*.go' -exec "$gofmt" -l {} +)
	[ -z "$unformatted" ] || {
		printf 'not formatted, run gofmt -w on:\n%s\n' "$unformatted" >&2
		return 1
	}
}

vet() {
	go vet ./...
	go -C benchmarks/compare vet ./...
}

modules() {
	go mod verify
	go mod tidy -diff
	go -C benchmarks/compare mod tidy -diff
}

# One iteration shows that a benchmark still works. Its numbers mean nothing, so they are shown only if it fails.
benchmarks() {
	local output
	output=$(go test -run '^$' -bench . -benchtime 1x ./... 2>&1) || {
		printf '%s\n' "$output" >&2
		return 1
	}
}

browser() {
	local chromium
	chromium=$(.ci/chromium.sh)
	cd internal/demo/browser
	npm ci --ignore-scripts --no-audit --no-fund
	# Bounded, since Node.js waits for ever for a browser that a failed test left open.
	SHOAL_BIN=$OLDPWD/bin/shoal CHROMIUM=$chromium timeout 300 node --test ./*.test.mjs
}

step "tools" .ci/tools.sh
step "redis" .ci/redis.sh
step "formatting" formatting
step "go vet" vet
step "modules" modules
step "tests" go test -race -shuffle=on ./...
step "comparison" go -C benchmarks/compare test ./...
# The race detector makes pools forget things on purpose, so what allocates is counted without it.
step "allocations" go test -run Alloc ./...
step "benchmarks once" benchmarks
step "build" make --no-print-directory build
step "browser" browser
echo "make test: everything passed in $SECONDS s"
