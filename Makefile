# One BLAS thread per process: threads that spin on shared cores cost more than they give.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test ui weights

setup: .venv/.installed

.venv/.installed: pyproject.toml deploy/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[dev]'
	touch $@

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest

# Trains, measures and compares the tiny study, or reuses what is complete.
demo: setup
	$(BIN)/opd study run tiny

# Dagster's UI on loopback, over the same store.
ui: setup
	$(BIN)/python -m assets.ui

# SmolLM2-135M-Instruct into the store, for `opd study run smollm`.
weights: setup
	$(BIN)/opd weights
