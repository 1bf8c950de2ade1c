# make figures: every figure and table from the generated sample. make help lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
# Test files side by side, one on each core; a process takes up to 3 GB.
BESIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help figures test test-all lint clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

figures: $(READY)  ## run the notebooks on the generated sample: all figures and tables
	$(BIN)/melanoma run --preset sample

test: $(READY)  ## the tests, under 10 minutes on two cores
	$(BIN)/pytest $(BESIDE) -m "not slow"

test-all: $(READY)  ## the slow tests too, one after the other: some of them measure time
	$(BIN)/pytest

lint: $(READY)  ## check the style of code and notebooks
	$(BIN)/ruff check .

clean:  ## remove the virtual environment; data, runs and figures stay
	rm -rf $(VENV)

# Installed again whenever the dependencies change.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
