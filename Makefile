# SPDX-License-Identifier: Apache-2.0
# `make` says what there is. Everything runs on one machine; see tests/cluster/README.md for the clusters.

CLUSTER := tests/cluster/cluster

.PHONY: help setup build images release-images test conformance bench scale fuzz demo demo-down fmt lint clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

setup: ## get and build what tests and demo need (some 12 minutes the first time; as root)
	$(CLUSTER) setup

build: ## all binaries, static
	cargo build --workspace --bins

images: build ## image archives of debug builds, for trials, in target/images
	tests/images.sh

release-images: ## image archives for production, in target/images (docs/operations.md says how to push them)
	cargo build --release --package operator --package facilitator
	tests/images.sh release

test: ## all tests, with a real cluster of their own
	tests/run

conformance: ## mailboxes in memory, folders, S3 and GCS against one suite, with faults: a table, and target/conformance/summary.json
	PRIO_OPERATOR_STORES=$$(tests/stores/setup) cargo test --quiet --package mailbox --test conformance

bench: ## figures against the floor of the cryptography, and target/bench/summary.json (docs/performance.md)
	cargo build --release --package facilitator --package facilitator-bench
	cargo run --release --quiet --package facilitator-bench

scale: ## ten thousand batches through two parties on a node of its own, measured (BATCHES=10000 BATCH_OBJECTS=Exceptions|All): a table, and target/scale/result.json, kept as result-exceptions.json or result-all.json
	BATCHES=$${BATCHES:-10000} BATCH_OBJECTS=$${BATCH_OBJECTS:-Exceptions} tests/scale

fuzz: ## mutate what partners may send, for ten minutes (FUZZ_SECONDS=600; see facilitator-core/fuzz/README.md)
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} cargo test -p facilitator-core --test fuzz -- --nocapture

demo: ## both parties on one node, one in S3 and one in GCS, from making keys to sums and to new keys
	tests/demo

demo-down: ## end the demo's cluster and remove what it made
	tests/demo-down

fmt: ## format the sources
	cargo fmt --all

lint: ## what CI wants of the sources
	tests/lint

clean: ## remove built files and the default cluster (not the cache in ~/.cache/prio-operator)
	$(CLUSTER) down
	cargo clean
