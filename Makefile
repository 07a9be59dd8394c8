# Everything a person does with a checkout. Needs Python 3.11 or newer with venv, make, and a package index.
.DEFAULT_GOAL := help
.PHONY: help setup demo lab dashboards check test bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LAKE := $(CURDIR)/lake
export LAKEHOUSE_PATH ?= $(LAKE)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/uv:
	@echo "Making the environment $(VENV) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

# One stamp for each set of extras; a changed pyproject or pin installs anew.
$(VENV)/.demo: $(BIN)/uv pyproject.toml constraints.txt
	@echo "Installing lakehouse and the demo …"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/.test: $(BIN)/uv pyproject.toml constraints.txt
	@echo "Installing lakehouse with all that its tests need …"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[test]'
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: $(BIN)/uv pyproject.toml constraints.txt
	@echo "Installing what the benchmarks compare with …"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bench]'
	@touch $@ $(VENV)/.test $(VENV)/.demo

setup: $(VENV)/.test ## Make .venv with everything for working on lakehouse
	@sh scripts/system-packages.sh

demo: $(VENV)/.demo ## Load real data, ask three questions, write a page
	@$(BIN)/lakehouse demo

lab: $(VENV)/.demo ## Open JupyterLab on the notebooks
	@$(BIN)/jupyter lab --notebook-dir=notebooks

dashboards: $(VENV)/.demo ## Open the dashboards on the demo lake
	@test -e $(LAKEHOUSE_PATH)/lake.json || $(BIN)/lakehouse demo
	@$(BIN)/lakehouse dashboards publish flights pathways
	@$(BIN)/lakehouse dashboards

check: $(VENV)/.test ## Lint (scripts and styles on Linux x86-64 only), types and the floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@if test -x $(BIN)/biome; then $(BIN)/biome lint --error-on-warnings --reporter=summary; fi

test: $(VENV)/.test check ## Check, then run all tests
	@sh scripts/system-packages.sh
	@$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

bench: $(VENV)/.bench ## Measure, each figure beside its limit
	@$(BIN)/python benchmarks/run.py

clean: ## Remove the environment and every cache; lakes stay
	rm -rf $(VENV) .bench .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
