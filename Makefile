# Two commands for a stranger: `make demo` and `make test`. Both make the environment first.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo test lint clean

demo: $(VENV)/.ready
	$(BIN)/python -m pipelines demo

test: $(VENV)/.ready
	$(BIN)/python -m pytest

lint: $(VENV)/.ready
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .

$(VENV)/.ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: needs Python 3.11 or 3.12 with venv (Debian: apt install python3 python3-venv); or give one: make PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	$(BIN)/python -m pip check
	touch $@

clean:
	rm -rf $(VENV) demo runs
