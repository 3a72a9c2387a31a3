# The front door. Every target makes its own .venv when it is missing, under the versions in constraints.txt.
#
#   make demo        an answer on screen, from nothing
#   make test        the tests that fit a small machine, in minutes
#   make test-full   those that take many minutes or gigabytes as well, and those of TensorRT-RTX, which it installs
#   make test-arm64  the shipped model on emulated Arm cores, token for token as here; Debian or Ubuntu with qemu-user-static
#   make check       lint, format, types, import contracts
#   make bench       the published comparisons
#   make docs        write docs/cli.md from the commands
#   make venv        only the environment

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
PYTEST_ARGS ?=
ARM64_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RTX_STAMP := $(VENV)/.installed-tensorrt-rtx
PROJECTS := pyproject.toml runtime/pyproject.toml export/pyproject.toml
# The build back end is installed under the same constraints, so building needs no environment of its own.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-full test-arm64 check format docs bench clean

help:
	@sed -n 's/^#   //p' Makefile

venv: $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Error: edgevlm needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(PROJECTS) constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (torch is large: minutes on the first time)" >&2
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation -e './runtime[cpu]' -e ./export -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m edgevlm.demo

# Two workers with one thread each use two cores better than one worker with two: most tests are many small steps.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# TensorRT-RTX compiles for GPUs without one; its wheels are for x86-64 Linux and Windows alone.
$(RTX_STAMP): $(STAMP)
	if [ "$$(uname -m)" = x86_64 ]; then $(PIP) tensorrt-rtx; fi
	@touch $@

test-full: $(RTX_STAMP)
	$(BIN)/python -m pytest -m "slow or not slow" $(PYTEST_ARGS)

test-arm64: $(STAMP)
	$(BIN)/python -m tests.arm64 $(ARM64_ARGS)

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(STAMP)
	$(BIN)/python docs/make_cli.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .arm64 .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
