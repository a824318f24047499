# `make run` verifies the default driver and says where the report is; `make test` runs the tests; `make lint` checks style,
# types and layers. Each of them first sets up what it needs: a virtual environment in .venv.
#   make run ARGS='--semantics modern --seed 7'      make test TESTS=tests/cli

VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
ARGS   ?=
TESTS  ?= tests
PYTHON ?= $(shell for each in python3.13 python3.12 python3.11 python3; do \
	if "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$$each"; break; fi; done)

.PHONY: run test lint format setup clean

run: $(READY)
	$(BIN)/snapcheck run $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -q -n auto $(TESTS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(READY)

$(READY): pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "snapcheck needs Python 3.11 or later, and none was found."; \
		echo "Install it (apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3"; exit 1; fi
	@if [ ! -x $(BIN)/python ] && ! $(PYTHON) -m venv --clear $(VENV); then \
		rm -rf $(VENV); \
		echo "$(PYTHON) can not make a virtual environment: apt-get install python3-venv"; exit 1; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist snapcheck-report *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .nox
