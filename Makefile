# Run `make help`. All commands use the environment in .venv, made on first use from requirements.lock.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 5000
SERVE_PORT ?= 5001
METHODS ?= pf_msmtrec
WORKERS ?= 1
# Files stay whole, as the tests of one share data; tests/conftest.py has put the longest first.
PYTEST := pytest -n auto --dist loadfile --no-loadscope-reorder

# The store does not depend on where a command is run; set the variable yourself to use a server.
export MLFLOW_TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db
export MLFLOW_DISABLE_TELEMETRY ?= true
export DVC_NO_ANALYTICS ?= true
# Tests are compiled once: anew at every start, it takes each process that runs them seconds.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup repro check test lint style types imports docs docs-serve ui serve show experiments tune bench quality ablation federation-demo clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

setup: $(READY) ## make the environment (the other targets do it when it is missing)

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; or name another one: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@# DVC's page of plots would fetch its scripts from the network.
	@$(BIN)/python -c "from pathlib import Path; from pfmsmt.report.page import write_plots_page as w; w(Path('$(VENV)/plots.html'))"
	@dvc config --local plots.html_template ../$(VENV)/plots.html
	@touch $@

repro: $(READY) ## run the whole pipeline: data, training, evaluation, comparison, registration
	@dvc repro

check: lint ## lint, and the tests that are not slow; before every commit
	@$(PYTEST) -m "not slow"

test: $(READY) ## run all tests
	@$(PYTEST)

lint: style types imports ## style, types and import floors

style: $(READY)
	@ruff check .
	@ruff format --check .

types: $(READY)
	@mypy

imports: $(READY)
	@lint-imports

docs: $(READY) ## build the pages into site/; a broken link fails, and so does a reference page that is not current
	@python docs/generate.py --check
	@NO_MKDOCS_2_WARNING=1 mkdocs build

docs-serve: $(READY) ## show the pages at http://127.0.0.1:8000, and again after every change
	@NO_MKDOCS_2_WARNING=1 mkdocs serve

ui: $(READY) ## MLflow UI at PORT, and links to its useful pages
	@pfmsmt ui --port $(PORT)

serve: $(READY) ## serve all scenarios' champions over HTTP at SERVE_PORT
	@pfmsmt serve --port $(SERVE_PORT)

experiments: $(READY) ## a table of DVC's experiments: metrics, and parameters that differ
	@dvc exp show --only-changed --drop 'Created|models|runs|evaluation|reports'

show: $(READY) ## print the comparison table again
	@pfmsmt show

tune: $(READY) ## search for the best parameters of METHODS with WORKERS processes; more words in OPTIONS
	@pfmsmt tune --methods $(METHODS) --workers $(WORKERS) $(OPTIONS)

bench: $(READY) ## speed and memory: raw files to shards, loading, the batched model, the server's step, tuning, large tables
	@python benchmarks/data.py
	@python benchmarks/experts.py
	@python benchmarks/server_step.py
	@python benchmarks/tuning.py
	@python benchmarks/serving.py
	@python benchmarks/loading.py
	@python benchmarks/large_table.py

quality: $(READY) ## methods x seeds x settings, then the tables of docs/results.md; takes an hour
	@python benchmarks/quality.py run --settings no_conflict default strong_conflict movielens
	@python benchmarks/quality.py table

ablation: $(READY) ## pf_msmtrec with modules off, on the planted data; takes an hour
	@python benchmarks/quality.py run --settings default strong_conflict --methods pf_msmtrec
	@python benchmarks/quality.py run --settings default --variants modules
	@python benchmarks/quality.py run --settings strong_conflict --variants stripped
	@python benchmarks/quality.py table

federation-demo: $(READY) ## a server and one site per scenario as processes on this machine, over TLS, for 3 rounds
	@pfmsmt federate demo

clean: ## remove all that the pipeline made (data, models, reports, checkpoints); keeps MLflow's store and studies
	rm -rf federation-demo data models runs evaluation reports checkpoints champions.json .dvc/cache .dvc/tmp
