#!/usr/bin/env bash
# Every check of the repository, one line a step. Static checks run beside the later steps, at the lowest priority.
set -euo pipefail
cd "$(dirname "$0")/.."

# How long the stress tests keep going; short here, minutes before a release.
export SHOAL_STRESS=${SHOAL_STRESS:-5s}

# Tests write their temporary files below a folder that must be empty afterwards.
scratch=$(mktemp -d)
export TMPDIR=$scratch/tmp
mkdir "$TMPDIR"
current=""
static=""

finish() {
	local status=$?
	[ -z "$static" ] || kill -- "-$static" 2>/dev/null || true
	[ $status = 0 ] || echo "make test: failed at: $current" >&2
	chmod -R u+w "$scratch" 2>/dev/null || true
	rm -rf "$scratch"
}
trap finish EXIT

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

modules() {
	go mod verify
	.ci/modules.sh
}

# vet_for checks that everything builds for another system, tests included, but the comparison, which is for Linux.
vet_for() {
	local all
	mapfile -t all < <(go list work | grep -v /benchmarks/compare)
	GOOS=$1 CGO_ENABLED=0 go vet "${all[@]}"
}

# static_checks need no machine for themselves, and nothing waits for them but the end. They begin after the tests, whose
# clusters elect leaders in time only if they get the processors.
static_checks() {
	step "formatting" formatting
	step "words" .ci/words.sh
	step "modules" modules
	step "go vet" go vet work
	step "vet for darwin" vet_for darwin
	step "vet for windows" vet_for windows
}

# raced tests packages with the race detector.
#
# The race detector of Go 1.26 may crash where tests use synctest (https://go.dev/issue/78156): it prints a line of its
# own or gets a segmentation fault in its C++ code, and no test fails. The package is then tested once more. Every other
# failure counts.
raced() {
	local output=$scratch/tests broken
	if go test -race -shuffle=on "$@" 2>&1 | tee "$output"; then
		return
	fi
	! grep -qE '^(--- FAIL|panic:|fatal error:|WARNING: DATA RACE)|\[build failed\]|\[setup failed\]' "$output" || return 1
	mapfile -t broken < <(awk '$1 == "FAIL" && NF > 1 { print $2 }' "$output")
	grep -q '^ThreadSanitizer: CHECK failed' "$output" || crashed_in_detector "$output" "${broken[@]}" || return 1
	echo "the race detector crashed in ${broken[*]}: testing once more" >&2
	go test -race -shuffle=on "${broken[@]}"
}

# crashed_in_detector reports whether each segmentation fault in a test's output happened in a function of the race
# detector, by the symbols of the test binaries.
crashed_in_detector() {
	local output=$1 addresses
	shift
	mapfile -t addresses < <(awk '/^PC=0x/ { print substr($1, 6) }' "$output")
	[ ${#addresses[@]} = $# ] || return 1
	for package in "$@"; do
		go test -race -c -o "$scratch/raced" "$package"
		nm -n "$scratch/raced"
	done | awk -v wanted="${addresses[*]}" '
		BEGIN { count = split(wanted, pc, " "); for (i = 1; i <= count; i++) pc[i] = sprintf("%16s", pc[i]); for (i in pc) gsub(" ", "0", pc[i]) }
		{ for (i in pc) { if ($1 > pc[i] && last <= pc[i] && name ~ /__tsan|__sanitizer/) delete pc[i] } last = $1; name = $3 }
		END { for (i in pc) exit 1 }'
}

# The command's tests run clusters of whole servers, whose elections need processor time: they run by themselves.
tests() {
	local all
	mapfile -t all < <(go list work | grep -v -e /cmd/shoal -e /benchmarks/compare)
	raced "${all[@]}"
	raced ./cmd/shoal/...
}

# The race detector makes pools drop items on purpose, so allocations are counted without it. One iteration shows that a
# benchmark still works; its figures mean nothing.
allocations_and_benchmarks() {
	local output
	output=$(go test -run Alloc -bench . -benchtime 1x work 2>&1) || {
		printf '%s\n' "$output" >&2
		return 1
	}
}

# javascript tests the client of JavaScript: units, the package, and against servers in Node.js and Chromium.
javascript() (
	cd client/js
	npm ci --ignore-scripts --no-audit --no-fund
	npm run --silent check
	# Bounded, since Node.js waits for a browser that a failed test left open.
	SHOAL_BIN=$OLDPWD/bin/shoal CHROMIUM=$chromium timeout 400 npm test --silent
)

# browser tests the demo page. It uses the modules that the client's step has installed.
browser() {
	SHOAL_BIN=$PWD/bin/shoal CHROMIUM=$chromium timeout 300 node --test internal/demo/browser/*.test.mjs
}

no_leftovers() {
	local left
	left=$(ls -A "$TMPDIR")
	[ -z "$left" ] || {
		printf 'tests left files in the temporary folder:\n%s\n' "$left" >&2
		return 1
	}
}

step "tools" .ci/tools.sh
step "redis" .ci/redis.sh

step "tests" tests

set -m # the static checks get a process group of their own, which can be stopped as a whole
TMPDIR=$scratch nice -n 19 bash -c "$(declare -f step formatting modules vet_for static_checks); set -euo pipefail
	scratch=$scratch; static_checks" >"$scratch/static" 2>&1 </dev/null &
static=$!
set +m

step "comparison" go -C benchmarks/compare test ./...
step "build" make --no-print-directory build
chromium=$(.ci/chromium.sh) || {
	current="finding Chromium"
	exit 1
}
step "javascript client" javascript
step "browser" browser
step "allocations" allocations_and_benchmarks
step "temporary files" no_leftovers

current="static checks"
wait "$static" || {
	cat "$scratch/static"
	exit 1
}
static=""
cat "$scratch/static"
echo "make test: everything passed in $SECONDS s"
