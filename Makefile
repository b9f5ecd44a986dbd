# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
# torch is pinned in the same pip command as all that needs it: otherwise pip may take a build that
# comes with gigabytes of CUDA
TORCH ?= torch==2.13.0

BIN := $(CURDIR)/$(VENV)/bin
SYSTEM_PATH := $(PATH)
export PATH := $(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
export GIT_PYTHON_REFRESH := quiet

.PHONY: demo test lint docs ui clean help

help: ## Show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/' | expand -t 10

demo: $(VENV)/.installed ## Train and test everything on the bundled pack; print table and report
	anymodal run
	anymodal results

test: $(VENV)/.installed-dev ## Run the tests
	python -m pytest -n auto --maxprocesses 4 --no-loadscope-reorder

lint: $(VENV)/.installed-dev ## Check style and types
	ruff check .
	ruff format --check .
	mypy

docs: $(VENV)/.installed-dev ## Make the reference of the API from its docstrings, in site/
	python -m pdoc anymodal '!anymodal.serving' -d numpy -o site

ui: $(VENV)/.installed ## Compare runs in the MLflow UI at http://127.0.0.1:5000
	mlflow ui --backend-store-uri sqlite:///mlflow.db

clean: ## Remove the environment and everything that stages wrote
	rm -rf $(VENV) artifacts .anymodal mlruns mlflow.db

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet "$(TORCH)" -e .
	@# `mlflow run` gets its Python from pyenv alone; where there is none, a stand-in serves this one
	@env PATH="$(SYSTEM_PATH)" sh -c 'command -v pyenv' >/dev/null || cp tools/pyenv $(BIN)/pyenv
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet "$(TORCH)" -e ".[dev]"
	@touch $@
