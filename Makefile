# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
# pinned in the same pip command as everything that needs it: otherwise pip may choose a build with
# gigabytes of CUDA
TORCH ?= torch==2.13.0

BIN := $(CURDIR)/$(VENV)/bin
SYSTEM_PATH := $(PATH)
export PATH := $(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
export GIT_PYTHON_REFRESH := quiet

.PHONY: demo test test-fast lint docs ui clean help

help: ## Show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/' | expand -t 10

demo: $(VENV)/.installed ## Train and test everything on the bundled pack; print the results
	anymodal run
	anymodal results

test: $(VENV)/.installed-dev ## Run all tests
	python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.installed-dev ## Run the tests that take less than about two seconds each
	python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not slow"

lint: $(VENV)/.installed-dev ## Check style, types and layers
	ruff check .
	ruff format --check .
	mypy
	lint-imports

docs: $(VENV)/.installed-dev ## Build the API reference from docstrings, in site/
	python -m pdoc anymodal '!anymodal.classifier.flavor' -d numpy -o site

ui: $(VENV)/.installed ## Compare runs in the MLflow UI at http://127.0.0.1:5000
	mlflow ui --backend-store-uri sqlite:///mlflow.db

clean: ## Remove the environment and all outputs
	rm -rf $(VENV) artifacts .anymodal mlruns mlflow.db

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	"$(BIN)/python" -m pip install --quiet "$(TORCH)" -e .
	@# `mlflow run` gets its Python from pyenv alone; without pyenv a stand-in returns this one
	@env PATH="$(SYSTEM_PATH)" sh -c 'command -v pyenv' >/dev/null || cp tools/pyenv "$(BIN)/pyenv"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	"$(BIN)/python" -m pip install --quiet "$(TORCH)" -e ".[dev]"
	@touch $@
