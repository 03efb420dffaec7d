#!/usr/bin/env bash
# Every check of the repository, one line a step. The first that fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."

# How long the stress tests keep going; short here, minutes before a release.
export SHOAL_STRESS=${SHOAL_STRESS:-5s}

current=""
scratch=$(mktemp -d)
trap '[ $? = 0 ] || echo "make test: failed at: $current" >&2; rm -rf "$scratch"' EXIT

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
	go vet work
}

modules() {
	go mod verify
	.ci/modules.sh
}

# raced tests packages with the race detector.
#
# That of Go 1.26 may break by itself where tests have bubbles of synctest (https://go.dev/issue/78156). It says so, and
# nothing of the tests of that package, which then have to be run once more. Whatever fails by itself has failed.
raced() {
	local output=$scratch/tests broken
	if go test -race -shuffle=on "$@" 2>&1 | tee "$output"; then
		return
	fi
	grep -q '^ThreadSanitizer: CHECK failed' "$output" || return 1
	! grep -qE '^(--- FAIL|panic:|WARNING: DATA RACE)|\[build failed\]|\[setup failed\]' "$output" || return 1
	mapfile -t broken < <(awk '$1 == "FAIL" && NF > 1 { print $2 }' "$output")
	echo "the race detector broke down in ${broken[*]}: once more" >&2
	go test -race -shuffle=on "${broken[@]}"
}

# The command's tests run clusters of whole servers, whose elections need a machine that nobody else keeps busy.
tests() {
	local all
	mapfile -t all < <(go list work | grep -v -e /cmd/shoal -e /benchmarks/compare)
	raced "${all[@]}"
	raced ./cmd/shoal/...
}

# One iteration shows that a benchmark still works. Its numbers mean nothing, so they are shown only if it fails.
benchmarks() {
	local output
	output=$(go test -run '^$' -bench . -benchtime 1x work 2>&1) || {
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
step "tests" tests
step "comparison" go -C benchmarks/compare test ./...
# The race detector makes pools forget things on purpose, so what allocates is counted without it.
step "allocations" go test -run Alloc work
step "benchmarks once" benchmarks
step "build" make --no-print-directory build
step "browser" browser
echo "make test: everything passed in $SECONDS s"
