# demo: install and run the whole workflow on the demo patient.  test: everything CI checks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test install clean
demo: install
	$(BIN)/snakemake --cores all

test: $(STAMP)-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

install: $(STAMP)-demo

# The demo's level detector is ultralytics (AGPL-3.0); the tests also run the real TotalSegmentator.
$(STAMP)-demo: EXTRAS := detect
$(STAMP)-test: EXTRAS := test,detect,segment

# pip, not uv, does the resolving: pip finds a torch wheel that a machine already has (PIP_FIND_LINKS).
$(STAMP)-demo $(STAMP)-test: pyproject.toml constraints.txt
	test -x $(BIN)/python || { command -v uv >/dev/null && uv venv --seed --python '>=3.11' $(VENV) || $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) results .snakemake
