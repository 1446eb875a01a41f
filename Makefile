# Two commands for a fresh machine: `make demo` and `make test`. Python 3.11 or newer, git and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo test check clean

setup: $(VENV)/.installed

# torch first and by itself: a later package that asks for "torch" must find it there.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,heic]'
	touch $@

# The three checks of CONTRIBUTING, then the suite.
test: setup check
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: setup
	sh demo/run.sh $(BIN)/magicid

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
