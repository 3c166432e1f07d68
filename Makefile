# Two commands do everything from a bare clone:
#   make demo   install cmbprep and run it on a small simulated dataset
#   make test   install the development tools and pass every check
# Both need Python 3.11, make and a package index; nothing else is fetched. Modules are compiled
# when they are first imported (--no-compile): most of those that are installed never are.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
DEMO_DIR ?= demo
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=

# Every check starts many processes. Each would compile the modules that it imports again where the
# machine forbids Python to keep what it has compiled: importing ANTs takes three times as long then.
export PYTHONDONTWRITEBYTECODE :=

BIN := $(VENV)/bin
SOURCES := cmbprep tests docs $(wildcard benchmarks)
INSTALL_INPUTS := pyproject.toml constraints.txt cmbprep/__init__.py

# The first interpreter that really starts and is one of the supported versions.
FIND_PYTHON = for candidate in $(PYTHON) python3.11 python3 python3.12 python3.13; do \
	  if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	    >/dev/null 2>&1; then echo "$$candidate"; exit 0; fi; \
	done; \
	echo "cmbprep needs Python 3.11 (3.12 and 3.13 may work) and none was found on PATH." >&2; \
	echo "Install it (Debian, Ubuntu: apt install python3 python3-venv) or say where it is:" >&2; \
	echo "  make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
	exit 1

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/pyvenv.cfg:
	@python="$$($(FIND_PYTHON))"; \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment could be made (Debian, Ubuntu: apt install python3-venv)." >&2; \
	  exit 1; }

$(VENV)/.installed-run: $(INSTALL_INPUTS) | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(INSTALL_INPUTS) | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[test,docs]'
	@touch $@ $(VENV)/.installed-run

.PHONY: demo
demo: $(VENV)/.installed-run  ## simulate a small dataset, run cmbprep on it, say where the reports are
	$(BIN)/cmbprep-tools demo $(DEMO_DIR)

.PHONY: test
test: $(VENV)/.installed-dev  ## every check: lint, types, documentation, tests
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint docs  # one processor each
	OMP_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1 \
	  $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.installed-dev  ## ruff and mypy
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

.PHONY: format
format: $(VENV)/.installed-dev  ## let ruff tidy the sources
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

.PHONY: docs
docs: $(VENV)/.installed-dev  ## build the documentation; a warning is an error
	@rm -rf docs/api/generated  # pages of modules that are no more would be warnings
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "Documentation: docs/_build/html/index.html"

.PHONY: dist
dist: $(VENV)/.installed-dev  ## build the source archive and the wheel into dist/
	$(BIN)/python -m hatchling build

.PHONY: lock
lock:  ## write constraints.txt anew from the newest releases that fit pyproject.toml
	@python="$$($(FIND_PYTHON))"; \
	scratch="$$(mktemp -d)"; trap 'rm -rf "$$scratch"' EXIT; \
	"$$python" -m venv "$$scratch"; \
	"$$scratch/bin/python" -m pip install --quiet '.[test,docs]'; \
	{ sed -n '/^#/p' constraints.txt; \
	  "$$scratch/bin/python" -m pip freeze --exclude cmbprep | sed -E 's/ @ .*//; s/\+[^ ]*$$//'; \
	} > constraints.new; \
	mv constraints.new constraints.txt

.PHONY: clean
clean:  ## remove what the targets above have made
	rm -rf $(VENV) $(DEMO_DIR) build dist docs/_build docs/api/generated \
	  .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
