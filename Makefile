# `make` lists the targets. Everything runs in .venv, made from the pinned versions of constraints.txt.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
# What cargo builds is kept for all checkouts, beside the servers of the tests.
CARGO_ENV := CARGO_TARGET_DIR="$${XDG_CACHE_HOME:-$$HOME/.cache}/oomstream/cargo"
ARGS ?=
PROCESSES ?= 1
SERVERS ?=
KILLS ?= 50
WORKERS ?= 3
SEED ?= 1

.PHONY: help install demo test test-go check lint format types proto servers bench torture clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  (ARGS='…' passes options on: make test ARGS='-k push -x')"

install: .venv/.install .venv/.native  ## Make .venv with everything for development

demo: $(if $(SERVERS),.venv/.install,.venv/.demo)  ## Run the demo: a year of flights; SERVERS=1: on Kafka, TiDB and TiKV
	@$(if $(SERVERS),$(BIN)/python -m tests.services run) $(BIN)/oomstream demo $(ARGS)

# worksteal keeps tests of a file together until one process has nothing left to do.
test: .venv/.install  ## Run all tests; PROCESSES=2: side by side, each process with servers of its own
	$(BIN)/python -m pytest $(if $(filter-out 1,$(PROCESSES)),-n $(PROCESSES) --dist worksteal) $(ARGS)

test-go: .venv/.install  ## Check and test the TiKV-protocol server of the tests (needs Go)
	cd tests/services/tikv && test -z "$$(gofmt -l .)" && go vet ./... && go test ./...

check: lint types test  ## Run what CI runs: lint, types, tests

lint: .venv/.install  ## Check style, spelling and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports
	@if command -v cargo >/dev/null; then set -x; \
	  cargo fmt --check --manifest-path native/Cargo.toml; \
	  $(CARGO_ENV) cargo clippy --quiet --locked --release --manifest-path native/Cargo.toml -- --deny warnings; \
	fi

format: .venv/.install  ## Rewrite the code in house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@if command -v cargo >/dev/null; then cargo fmt --manifest-path native/Cargo.toml; fi

types: .venv/.install  ## Check types, strictly
	$(BIN)/mypy
	$(BIN)/mypy tests benchmarks

proto: .venv/.install  ## Compile agents/serve/oomagent.proto, and the types of its messages
	cd agents/serve && PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I . \
	  --descriptor_set_out=oomagent.binpb --mypy_out=quiet,readable_stubs:. oomagent.proto

servers: .venv/.install  ## Start Kafka, TiDB and TiKV on this machine and print their URLs
	$(BIN)/python -m tests.services

bench: .venv/.install  ## Measure against yardsticks (ARGS='ingest reads'); SERVERS=1: on Kafka, TiDB and TiKV
	@$(if $(SERVERS),$(BIN)/python -m tests.services run) $(BIN)/python -m benchmarks $(if $(SERVERS),--servers) $(ARGS)

torture: .venv/.install  ## Kill workers at work and account for every row (KILLS WORKERS SEED); SERVERS=1: real servers
	@$(BIN)/python -m tests.torture --kills $(KILLS) --workers $(WORKERS) --seed $(SEED) \
		$(if $(SERVERS),--servers) $(ARGS)

clean:  ## Remove .venv, caches and build products (never data)
	rm -rf .venv build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: an environment is made again only when what it is made from has changed.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.tools: constraints.txt | .venv/bin/python
	$(PIP) pip setuptools
	@touch $@

.venv/.demo: pyproject.toml .venv/.tools
	@echo "Installing what the demo needs into .venv …"
	@# --no-build-isolation: the build uses the pinned setuptools of .venv, so nothing else is fetched.
	$(PIP) --no-build-isolation --editable '.[demo]'
	@touch $@

.venv/.install: pyproject.toml .venv/.tools
	@echo "Installing what development needs into .venv …"
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@ .venv/.demo

# TiKV's native client. Without cargo nothing is lost but speed; a stamp that is not set lets the next `make` try again.
.venv/.native: $(wildcard native/src/*.rs native/Cargo.* native/pyproject.toml native/*.pyi) .venv/.install
	@if command -v cargo >/dev/null; then \
	  echo "Building the native TiKV driver (minutes the first time) …"; \
	  rm -rf .venv/native && $(CARGO_ENV) $(BIN)/maturin build --quiet --locked --release -m native/Cargo.toml \
	    -i $(BIN)/python --out .venv/native && \
	  $(PIP) --force-reinstall --no-deps .venv/native/*.whl && touch $@; \
	else \
	  echo "No cargo: the native TiKV driver is not built, and TiKV is used through tikv-client."; \
	fi
