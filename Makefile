# Two commands for a fresh machine: `make demo` and `make test`. Python 3.11 or newer, git and make are enough.
# Another Python or place: `make demo PYTHON=python3.12 VENV=../magicid-env`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
TORCH := $(shell grep '^torch==' constraints.txt)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo test check clean

setup: $(VENV)/.installed

# torch first, alone and by its exact version: what follows finds it there and pip never weighs another build of it.
# hatchling next, so that the project is built with the pinned one. The mark's time is that of the start: a file edited
# meanwhile counts as newer. Only an environment that carries the mark of an interrupted start is thrown away.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	    "magicid needs Python 3.11 or newer, this is %d.%d; name one: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "setup: installing $(TORCH) and the pinned packages into $(VENV); 1 to 3 minutes plus the download, once"
	@if [ -e $(VENV)/.installing ]; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && rm -f $@ && touch $(VENV)/.installing
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) $(TORCH)
	@$(PIP) hatchling
	@$(PIP) --no-build-isolation --editable '.[dev,heic]'
	@mv $(VENV)/.installing $@

# The checks of CONTRIBUTING, then the suite.
test: check
	@echo "test: pytest"
	@$(BIN)/python -m pytest

check: setup
	@echo "check: ruff check"
	@$(BIN)/ruff check .
	@echo "check: ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "check: mypy"
	@$(BIN)/mypy

demo: setup
	@sh demo/run.sh $(BIN)/magicid

# What make, the tools and the demo have written; nothing that git tracks.
clean:
	rm -rf $(VENV) build dist demo-home .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests demo benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
