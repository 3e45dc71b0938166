# Orbitwise. `make demo` does the main job end to end; `make test` passes the tests. Both set up what they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
.PHONY: help install demo test test-all test-rounding lint bench bench-full docs release clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: $(VENV)/.installed  ## a virtual environment in .venv with everything

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Orbitwise needs Python 3.11 or newer; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "installing into $(VENV) (a few minutes, once)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

demo: install  ## SMILES of alanine dipeptide -> ensemble, judged against a long reference run, with a report
	$(BIN)/orbitwise conformers 'CC(=O)N[C@@H](C)C(=O)NC' --n 2000 --out ensembles/alanine_dipeptide \
	  --reference benchmarks/references/alanine_dipeptide.npz

# Threads that sleep instead of spinning: on a loaded machine spinning makes small kernels many times slower.
PYTEST = OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $${PYTEST_WORKERS:-2} --dist loadscope

# A file of a method's tests is meant to take less than 10 s of processor time. Load makes those seconds more:
# the limit is twice as much, against growth and not against a busy machine.
test: install  ## the test suite without its slow tests
	ORBITWISE_CPU_LIMIT=20 $(PYTEST) -m "not slow" tests

test-all: install  ## the whole test suite
	$(PYTEST) tests

# What is cheap: no methods, no other processes, no other programs.
CHEAP = tests --ignore tests/methods --ignore tests/energies/test_distributed.py \
  --ignore tests/training/test_kill.py --ignore tests/training/test_ranks.py \
  --ignore tests/molecules/openmm --ignore tests/docs
test-rounding: install  ## tests that hold only by the rounding of this machine would fail here
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -m "not slow" $(CHEAP)
	ATEN_CPU_CAPABILITY=default ORBITWISE_MKLDNN=0 $(PYTEST) -m "not slow" $(CHEAP)
	ATEN_CPU_CAPABILITY=avx2 $(PYTEST) -m "not slow" $(CHEAP)
	ORBITWISE_PERTURB=1e-12 $(PYTEST) -m "not slow" $(CHEAP)

lint: install  ## style and types
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy

bench: install  ## check in minutes that every benchmark still runs; nothing is recorded
	$(BIN)/python -m benchmarks.tools.run_all

bench-full: install  ## every figure of the documentation, again (many hours on two cores)
	$(BIN)/python -m benchmarks.tools.run_all --full

docs: install  ## the documentation site in site/
	$(BIN)/python -m benchmarks.tools.cards
	$(BIN)/python -m benchmarks.tools.tables
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

release: install  ## wheel and source distribution in dist/, checked, and tried in a clean environment
	$(BIN)/python .ci/release.py

clean:  ## remove what was built (not your results)
	rm -rf $(VENV) site build dist .pytest_cache .hypothesis .ruff_cache .mypy_cache
