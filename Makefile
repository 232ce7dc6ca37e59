# Two commands do everything on a fresh machine with Python 3.11-3.13, git and make: `make run` and `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export DO_NOT_TRACK := true

.PHONY: help run test test-slow test-crash lint ui install clean
.DEFAULT_GOAL := help

help:
	@echo "make run    install into $(VENV) and run the whole pipeline on the embedded sample"
	@echo "make test   install the test tools as well and run the test suite"
	@echo "make test-slow   the tests that take minutes, among them xESMF's own suite"
	@echo "make test-crash  kill whole runs at random moments, and compare what the next ones make of it"
	@echo "make lint   style and layering alone"
	@echo "make ui     open MLflow's UI, the light way, at http://127.0.0.1:5000"
	@echo "make clean  remove what runs have made (data, runs, figures), not the environment"

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), "Python 3.11 to 3.13 is needed"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

install: $(VENV)/.installed

run: $(VENV)/.installed
	$(BIN)/kedro run

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow and not crash" --numprocesses 2 --dist loadfile

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

test-crash: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m crash

lint: $(VENV)/.installed-test
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/ruff format --check src tests benchmarks scripts
	$(BIN)/lint-imports

ui: $(VENV)/.installed
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --workers 1

clean:
	rm -rf data/0[2-8]_* mlflow.db* mlartifacts mlflow_pending mlruns benchmarks/results
