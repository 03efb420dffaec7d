# A table of contents: what takes more than a line stands in .ci/.

GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
VERSION       = $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# Knobs, to be set on the command line: make bench BENCH=FanOut COUNT=10
ARGS     ?=
BENCH    ?= .
COUNT    ?= 1
FUZZTIME ?= 30s

.DEFAULT_GOAL := help
.PHONY: run cluster test bench bench-compare fuzz lint build help

run: build ## Start a development server (flags: ARGS="--addr 127.0.0.1:8081")
	@bin/shoal serve --dev $(ARGS)

cluster: build ## Start three development nodes that share messages (flags for all: ARGS=...)
	@.ci/cluster.sh $(ARGS)

test: ## Run everything CI runs; installs what is missing (stress: SHOAL_STRESS=5m)
	@.ci/test.sh

bench: ## Run the benchmarks (which: BENCH=FanOut, how often: COUNT=10)
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) ./...

bench-compare: ## Measure beside other systems (about an hour; less: ARGS="--scenario S1"; ARGS="sweep cores")
	cd benchmarks/compare && go run . $(ARGS)

fuzz: ## Run each fuzz target in turn (how long: FUZZTIME=30s)
	@.ci/fuzz.sh $(FUZZTIME)

lint: ## Run the linters of .golangci.yml (builds them the first time: some minutes)
	go run $(GOLANGCI_LINT) run

build: ## Build bin/shoal
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/shoal ./cmd/shoal

help: ## Print this
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
