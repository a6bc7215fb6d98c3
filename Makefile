# make setup | demo | test | test-all | check | docs | bench | bench-peers      (PYTHON=python3.12 make setup for another interpreter)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
PEERS := .venv-peers

.PHONY: setup demo test test-all check docs format bench bench-peers clean

setup: $(STAMP)

# One stamp makes setup idempotent; it runs again when the dependencies change.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/emca-deploy demo -o demo

# Compiled tests are kept whatever the caller's setting: rewriting their assertions takes every worker 4 s of processor time.
test test-all: export PYTHONDONTWRITEBYTECODE =
# Keep freed memory in the process: returning the pages of every array to the system takes a tenth of the processor time.
test test-all: export MALLOC_MMAP_THRESHOLD_ = 33554432
test test-all: export MALLOC_TRIM_THRESHOLD_ = 1073741824
# Three processes on two cores: tests that wait for a remote machine or a clock leave a core idle.
PYTEST = $(BIN)/python -m pytest -q --numprocesses 3 --dist worksteal --durations 10 --durations-min 1

test: setup
	$(PYTEST)

# The nightly tier adds the slow tests and runs eight times as many examples of each property.
test-all: setup
	$(PYTEST) -m '' --hypothesis-profile nightly

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Build the documentation site, docs/_build/html/index.html; warnings and broken links are errors.
docs: setup
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python benchmarks/cpu.py

# The peers that the benchmark compares with are large and not dependencies of ours: they have their own environment.
$(PEERS)/.setup-done: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --requirement benchmarks/requirements.txt
	touch $@

bench-peers: $(PEERS)/.setup-done
	$(PEERS)/bin/python benchmarks/quantization.py $(ARGS)

clean:
	rm -rf $(VENV) $(PEERS) demo build dist docs/_build *.egg-info
