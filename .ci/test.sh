#!/usr/bin/env bash
# Every check of the repository, one line a step. Static checks and the simulation need Go alone: they begin while tools are
# installed, and run, with the count of allocations, where the tests leave a processor idle. The tests of the JavaScript client,
# in browsers and of the comparison run beside those of the command, most of which wait for servers.
set -euo pipefail
cd "$(dirname "$0")/.."

# How long the stress tests keep going; short here, minutes before a release.
export SHOAL_STRESS=${SHOAL_STRESS:-5s}

# Without the path of this folder in what is compiled, another clone of the repository finds it in the cache: the test
# binaries are built in a minute instead of two.
export GOFLAGS="${GOFLAGS:-} -trimpath"

# The servers of tests are on this machine, which a proxy of the environment does not reach.
export no_proxy=127.0.0.1,localhost${no_proxy:+,$no_proxy}
export NO_PROXY=$no_proxy

# Where checks note what they have found correct before.
export known=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/shoal/known

# Tests write their temporary files below a folder that must be empty afterwards.
scratch=$(mktemp -d)
export scratch TMPDIR=$scratch/tmp
mkdir "$TMPDIR"
current=""
beside=() # process groups that run in the background

finish() {
	local status=$? group
	for group in "${beside[@]}"; do
		kill -- "-$group" 2>/dev/null || true
	done
	[ $status = 0 ] || echo "make test: failed at: $current" >&2
	chmod -R u+w "$scratch" 2>/dev/null || true
	rm -rf "$scratch"
}
trap finish EXIT

# step NAME COMMAND… runs a command and prints the seconds that it took, and those of processors: of all that was waited for.
step() {
	current=$1
	shift
	local start=$SECONDS before after
	processors before
	"$@"
	processors after
	printf -- '--- %-20s %4d s, processors %4d s\n' "$current" $((SECONDS - start)) $((after - before))
}

# processors VARIABLE sets a variable to the seconds of processors that the processes took which this shell has waited for.
processors() {
	local used=$scratch/times.$BASHPID
	times >"$used"
	printf -v "$1" %d "$(awk 'NR == 2 { split($1, u, /[ms]/); split($2, s, /[ms]/); printf "%d", 60 * (u[1] + s[1]) + u[2] + s[2] }' "$used")"
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
	verified_modules
	.ci/modules.sh
}

# verified_modules reads every module of the cache again if a file or folder there has changed since they were last verified.
verified_modules() {
	local folder verified
	folder=$(go env GOMODCACHE)
	verified=$known/modules-$(cat go.sum */go.sum */*/go.sum go.work.sum | sha256sum | cut -c1-64)
	[ ! -e "$verified" ] || [ -n "$(find "$folder" -cnewer "$verified" -not -path "$folder/cache/lock" -print -quit)" ] || return 0
	touch "$scratch/verified"
	go mod verify
	mkdir -p "$known"
	mv "$scratch/verified" "$verified"
}

# types checks the packages and tests of other systems, but not the comparison, which is for Linux. The workflows of GitHub
# build, vet and test on those systems. The same files, read by the same toolchain, have the same types in another clone.
types() {
	local all files
	files=$(types_depend_on)
	[ ! -e "$known/types-$files" ] || return 0
	mapfile -t all < <(go list work | grep -v /benchmarks/compare)
	go run ./internal/typecheck -os darwin,windows "${all[@]}"
	[ "$files" = "$(types_depend_on)" ] || return 0 # edited while they were read
	mkdir -p "$known"
	touch "$known/types-$files"
}

# types_depend_on prints a hash of all files but those that no Go package reads.
types_depend_on() {
	{
		go version
		go env GOFLAGS GOEXPERIMENT
		find . \( -name .git -o -path ./bin -o -path ./client/js -o -name go.work.sum \) -prune -o -type f -print0 |
			sort -z | xargs -0 sha256sum
	} | sha256sum | cut -c1-64
}

static_checks() {
	step "formatting" formatting
	step "words" .ci/words.sh
	step "commits of pages" .ci/commits.sh
	step "modules" modules
	step "go vet" go vet work
	step "tests of type checks" go test -vet=off ./internal/typecheck
	step "build linters of deploy" .ci/deploylint.sh
	step "types elsewhere" types
	step "linters" .ci/lint.sh --if-built
}

# in_background LOG PREFIX COMMAND starts a command, such as one of the functions above, in a process group of its own, which
# can be stopped as a whole. PREFIX are the words of a command that lowers its priority, and of one that bounds its time: a
# timeout further inside would begin another group, which is not stopped. Node.js waits for a browser that a failed test left
# open.
in_background() {
	set -m
	$2 bash -c "$(declare -f); set -euo pipefail; $3" >"$1" 2>&1 </dev/null &
	beside+=($!)
	set +m
}

# lowest prints the command that gives a program the processors only while no other program wants them: the tests run
# clusters, which elect leaders in time only if they need not wait.
lowest() {
	chrt --idle 0 true 2>/dev/null && echo "chrt --idle 0" || echo "nice -n 19"
}

# join LOG NAME waits for the oldest process group in the background and prints its log.
join() {
	local group=${beside[0]}
	current=$2
	wait "$group" || {
		cat "$1"
		exit 1
	}
	beside=("${beside[@]:1}")
	cat "$1"
}

# raced tests packages with the race detector. Vetting is left to "go vet", which has more checks. The detector does not
# wait a second at the end of each package for races of the goroutines that are left: goleak finds these goroutines.
#
# The race detector of Go 1.26 may crash where tests use synctest (https://go.dev/issue/78156): it prints a line of its
# own or gets a segmentation fault in its C++ code, and no test fails. The package is then tested once more. Every other
# failure counts.
raced() {
	local -x GORACE=atexit_sleep_ms=0
	local output=$scratch/tests broken
	if go test -race -vet=off -shuffle=on "$@" 2>&1 | tee "$output"; then
		return
	fi
	! grep -qE '^(--- FAIL|panic:|fatal error:|WARNING: DATA RACE)|\[build failed\]|\[setup failed\]' "$output" || return 1
	mapfile -t broken < <(awk '$1 == "FAIL" && NF > 1 { print $2 }' "$output")
	grep -q '^ThreadSanitizer: CHECK failed' "$output" || crashed_in_detector "$output" "${broken[@]}" || return 1
	echo "the race detector crashed in ${broken[*]}: testing once more" >&2
	go test -race -vet=off -shuffle=on "${broken[@]}"
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

# packages tests all packages but the command's. The type checker starts no goroutines of its own: it is tested by the
# static checks, without compiling its imports for the race detector.
packages() {
	local all
	mapfile -t all < <(go list work | grep -v -e /cmd/shoal -e /benchmarks/compare -e /internal/typecheck)
	raced "${all[@]}"
}

# command_line tests the command. These tests run clusters of whole servers, whose elections need processor time: what runs
# beside them has a lower priority.
command_line() {
	raced ./cmd/shoal/...
}

# The race detector makes pools drop items on purpose, so allocations are counted without it. One iteration shows that a
# benchmark still works; its figures mean nothing.
allocations_and_benchmarks() {
	local output packages
	mapfile -t packages < <(find . -name node_modules -prune -o -path ./benchmarks/compare -prune -o -name '*_test.go' \
		-exec grep -lE '^func (Benchmark|Test[A-Za-z0-9_]*Alloc)' {} + | xargs -n 1 dirname | sort -u)
	output=$(go test -vet=off -run Alloc -bench . -benchtime 1x "${packages[@]}" 2>&1) || {
		printf '%s\n' "$output" >&2
		return 1
	}
}

# javascript_packages installs what the tests of the client, and those in the browser, need.
javascript_packages() {
	npm --prefix client/js ci --ignore-scripts --no-audit --no-fund
}

# javascript tests the client of JavaScript: units, the package, and against servers in Node.js and Chromium.
javascript() (
	cd client/js
	npm run --silent check
	SHOAL_BIN=$OLDPWD/bin/shoal CHROMIUM=$chromium npm test --silent
)

# browser tests the demo page and the dashboard.
browser() {
	SHOAL_BIN=$PWD/bin/shoal CHROMIUM=$chromium node --test internal/demo/browser/*.test.mjs
}

# comparison tests the comparison with other systems, which is a module of its own.
comparison() {
	go -C benchmarks/compare test -vet=off ./...
}

# simulation executes more histories than the race detector lets the tests above execute.
simulation() {
	SHOAL_SEEDS=${SHOAL_SEEDS:-10000} go test -vet=off -count=1 -timeout 20m ./internal/sim
}

no_leftovers() {
	local left
	left=$(ls -A "$TMPDIR")
	[ -z "$left" ] || {
		printf 'tests left files in the temporary folder:\n%s\n' "$left" >&2
		return 1
	}
}

in_background "$scratch/static" "$(lowest)" static_checks
in_background "$scratch/simulation" "$(lowest)" "step simulation simulation"
step "tools" .ci/tools.sh
step "redis" .ci/redis.sh
in_background "$scratch/allocations" "$(lowest)" "step allocations allocations_and_benchmarks"
step "packages" packages

step "build" make --no-print-directory build
chromium=$(.ci/chromium.sh) || {
	current="finding Chromium"
	exit 1
}
export chromium
step "javascript packages" javascript_packages
in_background "$scratch/javascript" "nice timeout 600" "step 'javascript client' javascript"
in_background "$scratch/browser" "nice timeout 300" "step browser browser"
in_background "$scratch/comparison" "nice" "step comparison comparison"
step "command" command_line

join "$scratch/static" "static checks"
join "$scratch/simulation" "simulation"
join "$scratch/allocations" "allocations"
join "$scratch/javascript" "javascript client"
join "$scratch/browser" "browser"
join "$scratch/comparison" "comparison"
step "temporary files" no_leftovers
echo "make test: everything passed in $SECONDS s"
