# make figures: every figure and table from the generated sample. make help lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev
RUFF   := $(VENV)/.installed-ruff
# uv installs in half of pip's time, and is brought in where it is not; with pip: make UV= ...
UV     ?= $(shell command -v uv || echo $(BIN)/uv)
PIP    := $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/pip install) --quiet
# Test files side by side, one on each core; a process takes up to 3 GB.
BESIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help figures test test-all lint clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

figures: $(READY)  ## run the notebooks on the generated sample: all figures and tables
	$(BIN)/melanoma run --preset sample

test: $(DEV)  ## the tests, under 10 minutes on two cores
	$(BIN)/pytest $(BESIDE) -m "not slow"

test-all: $(DEV)  ## the slow tests too, one after the other: some of them measure time
	$(BIN)/pytest

lint: $(RUFF)  ## check the style of code and notebooks
	$(BIN)/ruff check .

clean:  ## remove the virtual environment; data, runs and figures stay
	rm -rf $(VENV)

# Installed again whenever the dependencies change; readers need no Azure, MLflow or browser driver.
$(READY): WHAT := --editable .
$(DEV): WHAT := --editable '.[dev]'
$(RUFF): WHAT := ruff
$(READY) $(DEV) $(RUFF): pyproject.toml constraints.txt | $(BIN)/pip $(UV)
	$(PIP) --constraint constraints.txt $(WHAT)
	touch $@

$(BIN)/uv: | $(BIN)/pip
	$(BIN)/pip install --quiet --constraint constraints.txt uv

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
