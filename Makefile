# A table of contents: commands of more than a line are scripts in .ci/.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# Knobs, to be set on the command line: make bench BENCH=FanOut COUNT=10
ARGS     ?=
BENCH    ?= .
COUNT    ?= 1
FUZZTIME ?= 30s
RUN      ?=
DURATION ?= 1m

.DEFAULT_GOAL := help
.PHONY: run cluster test test-unit bench bench-compare fuzz mutants soak lint vuln build release help

run: build ## Start a development server (flags: ARGS="--addr 127.0.0.1:8081")
	@bin/shoal serve --dev $(ARGS)

cluster: build ## Start three development nodes that share messages (flags for all: ARGS=...)
	@.ci/cluster.sh $(ARGS)

test: ## Run everything CI runs; installs what is missing (stress: SHOAL_STRESS=5m)
	@.ci/test.sh

test-unit: ## Run the tests that need nothing but Go, on any system
	go test $$(go list work | grep -v -e /redisbroker -e /benchmarks/compare)

bench: ## Run the benchmarks (which: BENCH=FanOut, how often: COUNT=10)
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) work

bench-compare: ## Measure beside other systems (about an hour; less: ARGS="--scenario S1"; ARGS="sweep cores")
	cd benchmarks/compare && go run . $(ARGS)

fuzz: ## Run the fuzz targets, one on each core (how long: FUZZTIME=30s, which: RUN=Broker)
	@.ci/fuzz.sh $(FUZZTIME) '$(RUN)'

mutants: ## Apply deliberate faults to a copy, each of which the tests must find (which: RUN=outbox)
	go run ./fuzz/mutants -run '$(RUN)'

soak: ## Keep two nodes under changing load and faults; fails if a resource does not return (how long: DURATION=1m)
	go run ./fuzz/soak -duration $(DURATION) $(ARGS)

lint: ## Run the linters of .golangci.yml (builds them the first time: some minutes)
	@.ci/lint.sh

vuln: ## Report known vulnerabilities in the modules that are compiled in, and compare docs/licences.md
	@.ci/vulnerabilities.sh
	@.ci/licences.sh

build: ## Build bin/shoal
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/shoal ./cmd/shoal

release: ## Build the archives of a tagged commit into dist/, with checksums (and try go install: ARGS=check)
	@.ci/release.sh $(ARGS)

help: ## Print this
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
