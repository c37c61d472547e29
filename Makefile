# Each target is a thin call; what it does is written in hack/.

TARGET := $(or $(REPRISE_TARGET),$(CARGO_TARGET_DIR),target)

.PHONY: help cluster cluster-down test-cluster demo gaps gaps-vm escapes spec-mutations test test-vm test-vm-quick conformance bench soak setup lint build clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST)

demo: setup ## see a container cold and restored, side by side
	hack/demo

gaps: setup ## the same containers under runc and under Reprise, compared (GAPS="--row 5")
	hack/gaps $(GAPS)

gaps-vm: setup ## the cases that need cgroup v2 or systemd, in a VM (GAPS="--row 26")
	hack/vm/gaps $(GAPS)

escapes: setup ## 10,000 racing attempts of each escape test (ESCAPES="--attempts 500")
	hack/escapes $(ESCAPES)

spec-mutations: setup ## every field and 2,000 mutated specs, as under runc (MUTATIONS="--seed 7")
	hack/spec-mutations $(MUTATIONS)

test: setup lint ## everything CI runs: lints, unit and integration tests
	hack/test

test-vm: setup ## the tests on cgroup v2 and systemd, in a VM (hours, in software emulation)
	hack/vm/test full

test-vm-quick: setup ## the most important of them, under both cgroup drivers (15 minutes)
	hack/vm/test quick

conformance: ## critest and containerd's own suites, under runc and under reprise
	hack/setup conformance
	hack/conformance

cluster: ## a Kubernetes cluster with the RuntimeClass (NODES=2 KUBERNETES=1.36)
	hack/setup cluster
	hack/cluster up

cluster-down: ## end it; nothing of it is left
	hack/cluster down

test-cluster: ## what Kubernetes' users do, under runc and under reprise (CASES="--case exec": only those)
	hack/setup cluster
	hack/cluster-test $(CASES)
	$(if $(CASES),,hack/cluster test)
	$(if $(CASES),,hack/bench/cluster)

bench: setup ## the cold path against runc's shim: times, memory, a hundred pods
	hack/bench/cold
	hack/bench/lookup

soak: setup ## a thousand containers through one shim: nothing grows, nothing is left
	hack/bench/soak

setup: ## install and build what tests need (cached outside the checkout)
	hack/setup

lint: ## formatting, clippy, scripts, dependencies
	hack/check

build: ## the shim and the reprise CLI, in release mode
	hack/setup build
	hack/build
	@ls -lh $(TARGET)/release/containerd-shim-reprise-v2 $(TARGET)/release/reprise

clean: ## remove what was built here (not the cache)
	cargo clean
