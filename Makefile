# The course in a few commands; `make help` lists them. Every recipe is plain pip and python: see the README.
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Three for two cores: some tests wait.
JOBS ?= 3

export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup learn run test check notebooks site bench mutants clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make the environment in .venv (TORCH_INDEX=... for another build of torch)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python: got {v[0]}.{v[1]}, expected 3.11 or newer. Try: make setup PYTHON=python3.12")'
	@echo "Setting up $(VENV): some minutes, once."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	@$(PIP) --editable '.[test]'
	@touch $@

learn: setup  ## open JupyterLab at your own copies of the notebooks, in work/
	@$(BIN)/lepton work --open

run: setup  ## walk the loop on the credit data; results in runs/credit
	@$(BIN)/lepton run loop --case credit --out runs/credit

test: setup  ## run all tests: the library, the notebooks, the commands
	@$(BIN)/python -m pytest -p no:nbval --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --durations 10 --cov

mutants: setup  ## plant faults in the library, see which are noticed; writes tests/mutants/RESULTS.md
	@nice $(BIN)/python -m tests.mutants --jobs $(JOBS)

check: setup  ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

notebooks: setup  ## run all notebooks again and store their outputs
	@$(BIN)/lepton notebooks

site: setup  ## build the course's site in site/, from the notebooks as they are
	@$(BIN)/python -m lepton_lib.site

bench: setup  ## measure against the peers; writes tests/benchmarks/RESULTS.md
	@$(PIP) --editable '.[test,bench]'
	@$(BIN)/python -m tests.benchmarks

clean:  ## remove the environment, all runs and the site; work/ stays
	rm -rf $(VENV) runs site build *.egg-info
