.PHONY: setup check test docs bench

VENV ?= .venv
BIN := $(VENV)/bin

setup: $(BIN)/illume-loop

$(BIN)/illume-loop: pyproject.toml constraints.txt
	test -x $(BIN)/python || python3.11 -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt -e '.[test]'
	touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup
	$(BIN)/pytest

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: setup
	rm -rf build/bench && mkdir -p build
	time $(BIN)/illume-loop start --run-dir build/bench
