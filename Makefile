# Every command of this project. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
# Rust and Go as their own installers put them, where the PATH doesn't have them.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin

CARGO := cargo
# What `make demo` is built as: what users run. `make demo PROFILE=dev` builds faster, and runs slower.
PROFILE := release
PROFILE_DIR = target/$(patsubst dev,debug,$(PROFILE))

.PHONY: help
help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

.PHONY: setup
setup: ## Bring what the build and the tests need (packages, containerd, a registry, an S3 server); once
	@tests/setup/bring-parts.sh

.PHONY: build
build: setup ## Build the program: target/release/stoker
	$(CARGO) build --locked --release --bin stoker

.PHONY: check
check: ## Format, lints and unit tests: the quick answer while working
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --quiet -- --deny warnings
	$(CARGO) test --locked --lib --quiet

.PHONY: lint
lint: ## Format, lints and docs; licences and crates too where cargo-deny is installed
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --quiet -- --deny warnings
	RUSTDOCFLAGS=--deny=warnings $(CARGO) doc --locked --quiet --no-deps --document-private-items
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny --locked check bans licenses sources; \
	else \
		echo "cargo-deny isn't installed: licences and crates were not checked (cargo install cargo-deny)"; \
	fi

.PHONY: audit
audit: ## Look for known advisories on the crates in use; needs cargo-deny and the network
	$(CARGO) deny --locked check advisories

.PHONY: test
test: setup lint ## Everything, on real parts, as root; ends with cargo's own summary
	$(CARGO) test --locked --workspace --no-fail-fast

.PHONY: test-matrix
test-matrix: ## Images on every containerd there is: 2.4, 2.2, 1.7 and Debian 12's 1.6; as root
	@tests/setup/bring-parts.sh --matrix
	$(CARGO) test --locked --test real -- images:: commit:: unpack:: pulls:: critest::
	STOKER_TEST_NEWER=2.2 STOKER_TEST_OLDER=1.6 $(CARGO) test --locked --test real -- images:: commit:: unpack:: pulls:: critest::

.PHONY: demo
demo: ## A registry, an S3 server and containerd on this machine; a real image and a real model; twice
	@tests/setup/bring-parts.sh --demo
	$(CARGO) build --locked --profile $(PROFILE) --bin stoker --example demo
	@$(PROFILE_DIR)/examples/demo

.PHONY: bench
bench: ## Race weights and images against what people use today, pods cold and warm, and the path to disk; some hours
	@tests/setup/bring-parts.sh --bench
	$(CARGO) bench --locked

# How long each target is fuzzed.
FUZZ_SECONDS ?= 30
CARGO_FUZZ := 0.13.2
FUZZ_TARGETS = $(patsubst fuzz/targets/%.rs,%,$(wildcard fuzz/targets/*.rs))

.PHONY: fuzz
fuzz: setup ## Try every reader of bytes from outside with damaged ones: FUZZ_SECONDS=30 each
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { \
		echo "cargo-fuzz isn't installed: installing $(CARGO_FUZZ), about 2 minutes"; \
		$(CARGO) install --quiet --locked cargo-fuzz --version $(CARGO_FUZZ); }
	@cp Cargo.lock fuzz/Cargo.lock
	RUSTC_BOOTSTRAP=1 $(CARGO) fuzz build --sanitizer none
	@for target in $(FUZZ_TARGETS); do \
		echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
		mkdir -p "fuzz/corpus/$$target"; \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none "$$target" \
			"fuzz/corpus/$$target" "fuzz/seeds/$$target" -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1; \
	done

.PHONY: image
image: ## Build the container image stoker:dev with docker, podman or buildah
	@tool=$$(command -v docker || command -v podman || command -v buildah) || \
		{ echo "docker, podman or buildah is needed to build an image"; exit 1; }; \
	"$$tool" build --tag stoker:dev .
