# The front door. Every target makes its own .venv when it is missing, under the versions in constraints.txt.
#
#   make demo        an answer on screen, from nothing
#   make demo-camera a line of parts watched through an RTSP camera, with a live page; CAMERA_ARGS="--seconds 60"
#   make test        the tests that fit a small machine, in minutes
#   make test-wide   more of them for single families and options, and the longest; CI runs these too
#   make test-full   those that take many minutes or gigabytes as well, and those of TensorRT-RTX and timm, which it installs
#   make test-openvino  those of the engine openvino, which it installs, in a process of their own
#   make test-rtx   those that compile by TensorRT-RTX, which it installs; no GPU is needed
#   make test-arm64  the shipped model on emulated Arm cores, token for token as here; Debian or Ubuntu with qemu-user-static
#   make fuzz        hostile input for every surface, FUZZ_SECONDS each (default: 30); ends with 1 when it finds something
#   make check       lint, format, types, import contracts
#   make fresh       installs as README.md says in new environments without caches, and uses what came
#   make sbom        the device install's bill of materials (CycloneDX) in dist/sbom-device.json
#   make bench       the published comparisons
#   make docs        write docs/cli.md from the commands
#   make venv        only the environment

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 3
PYTEST_ARGS ?=
ARM64_ARGS ?=
CAMERA_ARGS ?=
FUZZ_SECONDS ?= 30
FUZZ_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FUZZ_STAMP := $(VENV)/.installed-fuzz
TIMM := $(VENV)/timm
OPENVINO := $(VENV)/openvino
RTX := $(VENV)/rtx
PROJECTS := pyproject.toml runtime/pyproject.toml export/pyproject.toml
# The build back end is installed under the same constraints, so building needs no environment of its own. Nothing but
# our own three distributions is built here: a package that has no wheel is an error, not a compiler run. TensorRT-RTX's few
# lines of Python, which `make test-rtx` wants, are the exception.
QUIETLY := --quiet --disable-pip-version-check
PIP := $(BIN)/python -m pip install $(QUIETLY) --only-binary :all: -c constraints.txt
# What README.md tells a device to install.
DEVICE := --no-deps -r device-requirements.txt ./runtime . onnxruntime

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-camera test test-wide test-full test-openvino test-rtx test-arm64 fresh sbom fuzz check format docs bench clean

help:
	@sed -n 's/^#   //p' Makefile

venv: $(STAMP)

# pip comes last into a new environment: where it is, the environment is whole.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Error: edgevlm needs Python 3.11 or newer, $(PYTHON) is older or missing: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Error: $(PYTHON) cannot make environments (no venv or ensurepip): install them, on Debian and Ubuntu" \
	    "'apt install python3-venv', or name another Python: make PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(PROJECTS) constraints.txt | $(BIN)/pip
	@echo "Installing into $(VENV) (torch is large: minutes on the first time)" >&2
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation -e './runtime[cpu]' -e ./export -e '.[dev,export]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m edgevlm.demo

demo-camera: $(STAMP)
	$(BIN)/python -m edgevlm.demo.camera $(CAMERA_ARGS)

# Workers with one thread each use two cores better than one worker with two: most tests are many small steps. Three, not two:
# some tests only wait for a camera or a server. Files
# in the order of tests/conftest.py, the longest first, where xdist would begin with those that have the most tests.
# (xdist's loadgroup, which would keep one configuration's tests together, does nothing under pytest 9.2.)
# Bytecode is kept, whatever the environment says: else each worker and each command compiles everything once more.
TEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: $(STAMP)
	$(TEST) -m "unit or parity" $(PYTEST_ARGS)

test-wide: $(STAMP)
	$(TEST) -m wide $(PYTEST_ARGS)

# A folder of the next three is whole: it gets its name when all is in it.
#
# TensorRT-RTX compiles for GPUs without one; its wheels are for x86-64 Linux and Windows alone. What is imported, a few lines of
# Python over them, has no wheel. Tests are skipped where it is missing, so it is imported here.
$(RTX): $(STAMP)
	rm -rf $@ $@.new && mkdir $@.new
	if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  $(PIP) --target $@.new --no-binary tensorrt-rtx,tensorrt-rtx-cu13 tensorrt-rtx && \
	  PYTHONPATH=$@.new $(BIN)/python -c "import tensorrt_rtx"; fi
	mv $@.new $@

test-rtx: $(RTX)
	PYTHONPATH=$(abspath $(RTX)) EDGEVLM_RTX_REQUIRED=$$(uname -sm | grep -c "^Linux x86_64$$") \
	  $(BIN)/python -m pytest tests/export/compile $(PYTEST_ARGS)

# timm comes with torchvision, whose wheels are for CUDA builds of torch and which other tests must not see: with this folder
# on PYTHONPATH both can be imported.
$(TIMM): $(STAMP)
	rm -rf $@ $@.new
	$(PIP) --no-deps --target $@.new timm torchvision
	cp tests/support/torchvision_ops.py $@.new
	sed -i '1i import torchvision_ops' $@.new/torchvision/__init__.py
	mv $@.new $@

# In other tests' processes OpenVINO's threads and the fuzzer's timer (SIGPROF) end in a segmentation fault.
$(OPENVINO): $(STAMP)
	rm -rf $@ $@.new
	$(PIP) --no-deps --target $@.new openvino
	mv $@.new $@

test-openvino: $(OPENVINO)
	PYTHONPATH=$(OPENVINO) $(BIN)/python -m pytest tests/runtime/engines/intel tests/cli/test_tune.py $(PYTEST_ARGS)

test-full: $(RTX) $(TIMM) test-openvino
	PYTHONPATH=$(abspath $(RTX)) $(BIN)/python -m pytest -m "slow or not slow" $(PYTEST_ARGS)
	PYTHONPATH=$(TIMM) $(BIN)/python -m pytest -m "slow or not slow" -k fast_vlm tests/export/parity $(PYTEST_ARGS)

test-arm64: $(STAMP)
	$(BIN)/python -m tests.arm64 $(ARM64_ARGS)

fresh: $(STAMP)
	$(BIN)/python -m pytest -m fresh tests/fresh $(PYTEST_ARGS)

# The tool, and its pip, stay outside of the environment that they describe.
sbom:
	rm -rf build/sbom && mkdir -p build/sbom dist
	$(PYTHON) -m venv build/sbom/tool
	$(PYTHON) -m venv --without-pip build/sbom/device
	build/sbom/tool/bin/python -m pip install $(QUIETLY) --only-binary :all: -c constraints.txt cyclonedx-bom
	build/sbom/tool/bin/python -m pip --python build/sbom/device install $(QUIETLY) --only-binary :all: $(DEVICE)
	build/sbom/tool/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --sv 1.6 --of JSON \
	  --output-reproducible -o build/sbom/device.json build/sbom/device
	sed 's|"file://[^"]*/runtime"|"./runtime"|' build/sbom/device.json >dist/sbom-device.json  # no path of this machine
	@echo "dist/sbom-device.json" >&2
# Where there is no wheel of atheris the search works as well, not guided by coverage.
$(FUZZ_STAMP): $(STAMP)
	$(PIP) --no-build-isolation -e '.[fuzz]' || echo "No atheris here" >&2
	@touch $@

fuzz: $(FUZZ_STAMP)
	$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

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
