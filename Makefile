# The commands people type. Everything happens in .venv, pinned by constraints.txt.

PORT ?= 8000
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help serve test test-fast lint bench tiny tools

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/serve.stamp ## Run the service on 127.0.0.1:8000 (PORT= changes it) with the checkpoint that ships
	@$(BIN)/gmr serve --port $(PORT) || test $$? -eq 130 # Ctrl-C

test: tools lint ## Run everything, from nothing
	@$(BIN)/python -m pytest

test-fast: tools $(VENV)/dev.stamp ## Run the tests that take no time
	@$(BIN)/python -m pytest -m "not slow" -q

lint: $(VENV)/dev.stamp ## Check style, types, and who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: $(VENV)/dev.stamp ## Compare /rerank with the naive loop (about half an hour)
	@$(BIN)/gmr bench
	@$(BIN)/gmr bench --model generated

tiny: $(VENV)/dev.stamp ## Make gmr-tiny again from nothing (hours on two cores)
	@$(BIN)/python -m model_store.training.tiny build/gmr-tiny model_store/checkpoints/gmr-tiny

$(VENV)/serve.stamp: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV), once."
	@$(PIP) --editable '.[torch]'
	@touch $@

$(VENV)/dev.stamp: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV), once."
	@$(PIP) --editable '.[dev]'
	@touch $@

# The README's requests are tested as they stand.
tools:
	@command -v curl >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y curl; } || \
	  { echo "The tests need curl." >&2; exit 1; }

# Debian keeps the venv module in a package of its own.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y python3-venv; } || \
	  { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
