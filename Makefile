# Everything runs in .venv; only make and Python >= 3.11 are needed beforehand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/uv pip install --python $(BIN)/python --compile-bytecode -c constraints.txt

.PHONY: help demo test lint docs clean

help: ## show the targets
	@awk -F ':.*## ' '/^[.a-z]+:.*## /{printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv: $(VENV)/.installed ## create .venv and install the project with its tested versions

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "make: $(PYTHON) is missing or older than 3.11; name another with PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: $(PYTHON) has no ensurepip; install it (on Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

$(VENV)/.installed: $(VENV)/.uv pyproject.toml constraints.txt
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.uv pyproject.toml constraints.txt
	$(INSTALL) -e '.[test]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed ## train the digits recipe on four Ray workers, no download of data
	$(BIN)/python -m lasat_ray.train --num-workers 4

# A file of tests stays in one process, so that its fixtures are made once. Tests that start Ray fill the
# machine by themselves: they come alone, one after the other.
test: lint ## lint, then all tests
	$(BIN)/python -m pytest -m "not ray" --numprocesses logical --maxprocesses 4 --dist loadfile
	$(BIN)/python -m pytest -m ray

lint: $(VENV)/.installed-test ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m mypy

docs: $(VENV)/.installed ## build the documentation into site/, warnings are errors
	$(INSTALL) -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean: ## remove .venv, caches and builds; runs/ is kept
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
