# make train: sets up an environment and trains on Python's own source; make test: sets it up and runs the tests.
# make test-gpu and make bench-gpu: the numeric matrix of the Triton kernels and the benchmarks on a CUDA or ROCm GPU, with reports. Without
# one, make test-gpu DEVICE=interpreter and make bench-gpu DEVICE=cpu ARGS="--graphs tiny" try the same code.
# make fuzz N=100000 SEED=1: so many random programs through random passes; with FRONT=python random Python functions.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: train test test-all test-tritons test-gpu fuzz lint bench bench-gpu clean

train: $(READY)
	$(BIN)/python examples/entity_classification.py --dataset pycode

# Two workers of two threads each: threads that spin while they wait would keep the other worker from working.
# Each begins with one half of the tests and takes over half of what the other has left: what the tests of a module share is made once.
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest

test: $(READY)
	$(PYTEST) -n 2 --dist worksteal

test-all: $(READY) test-tritons
	$(PYTEST) -n 2 --dist worksteal -m "slow or not slow"

# Triton kernels under the oldest version of Triton that is supported and the next, with a NumPy that their interpreters know. A file a
# process: where Triton 3.5 has interpreted, it cannot compile any more.
TRITONS := 3.5.1 3.6.0
TRITON_TESTS := $(wildcard tests/runtime/triton/test_*.py tests/runtime/self_check/test_*.py tests/codegen/triton/test_*.py)

test-tritons: $(TRITONS:%=test-triton-%)

.SECONDARY: $(TRITONS:%=build/triton-%/.ready)
build/triton-%/.ready: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target build/triton-$* triton==$* "numpy==2.3.*"
	touch $@

test-triton-%: build/triton-%/.ready
	for file in $(TRITON_TESTS); do PYTHONPATH=$(CURDIR)/build/triton-$* $(PYTEST) -q $$file || exit 1; done

RESULTS ?= benchmarks/results
GPU_TESTS := tests/runtime/triton/test_matrix.py tests/runtime/triton/test_device.py

test-gpu: $(READY)
	$(BIN)/python -m pytest -m "slow or not slow" --device=$(or $(DEVICE),cuda) --report=$(RESULTS)/test-$(or $(DEVICE),cuda) $(GPU_TESTS) $(ARGS)

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --front $(or $(FRONT),ir) --programs $(or $(N),10000) --seed $(or $(SEED),0) --build $(or $(BUILD),64) --jobs $(or $(JOBS),2)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m benchmarks $(ARGS)

bench-gpu: $(READY)
	$(BIN)/python -m benchmarks --device $(or $(DEVICE),cuda) --out $(RESULTS)/bench-$(or $(DEVICE),cuda).jsonl \
		--markdown $(RESULTS)/bench-$(or $(DEVICE),cuda).md $(ARGS)

# DGL, which some benchmarks compare with, needs older packages than the rest.
.venv-dgl/.ready: benchmarks/requirements-dgl.txt $(READY)
	$(PYTHON) -m venv .venv-dgl
	.venv-dgl/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements-dgl.txt
	.venv-dgl/bin/pip install --quiet --disable-pip-version-check --no-deps dgl==1.1.3 "setuptools<70"
	.venv-dgl/bin/pip install --quiet --disable-pip-version-check --no-deps --config-settings editable_mode=strict -e .
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Bytecode is made on all cores, for processes that may write none, too; and not of what nobody imports.
UNUSED := /tests?/|/torch/testing/_internal/|/site-packages/(pip|setuptools)/

# A strict editable install gives type checkers and import contracts the package as it is imported; it knows the modules that there
# were when it was made, so that it is made again when a folder has changed.
$(READY): pyproject.toml constraints.txt $(shell find compiler ir codegen runtime -type d -not -name __pycache__)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt --config-settings editable_mode=strict -e ".[dev]"
	-$(BIN)/python -m compileall -qq -j 0 -x '$(UNUSED)' .venv/lib build
	touch $(READY)
