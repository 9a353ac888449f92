# `make quickstart` and `make test` set up all they need; only Python >= 3.10 and make are there before.

PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install quickstart test test-cluster lint bench clean

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

# torch first, by its pinned version: resolved later it may bring gigabytes of CUDA libraries. Of
# what is installed little is ever imported; it is compiled then, which spares a minute here.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "ablate needs Python 3.10 or newer; choose one with make PYTHON=python3.11 …"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-compile -c constraints.txt torch
	$(PIP) install --quiet --no-compile -c constraints.txt -e '.[cpu,quickstart,test]'
	@touch $@

install: $(VENV)/.installed ## set up .venv with everything that the other targets need

quickstart: install ## run a small real study, offline, in minutes, and say where to look
	$(BIN)/ablate run quickstart --runs $(RUNS)

test: install ## run the suite
	$(BIN)/python -m pytest

test-cluster: install ## what starts several clusters, nodes or servers, and loses some of them; many minutes
	$(BIN)/python -m pytest -m cluster tests

lint: install ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove the environment and what tools left; the run folder stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
