# Each target makes .venv if it is missing and installs what it needs from constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The reference implementation, for parity tests. Its own requirements are older than ours.
REFERENCE := sc2bench==0.1.1 torchdistill==1.1.5
# The version that the published CR+BQ models belong to; two cannot share an environment.
OLD_REFERENCE := sc2bench==0.0.3 torchdistill==0.3.3

MODEL = $(shell $(BIN)/python -c "from splitzoo import zoo; print(zoo.DEFAULT_MODEL)")

.PHONY: demo test test-all check bench cards lock clean

demo: .venv/.base
	rm -rf demo-out
	$(BIN)/splitzoo demo -o demo-out

test: .venv/.dev
	$(BIN)/python -m pytest -m "not slow"

test-all: .venv/.dev
	$(BIN)/python -m pytest

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_layout.py

bench: .venv/.dev
	$(BIN)/python benchmarks/sc2bench_speed.py

# The card of the demo, as an example to read, and the table of the zoo.
cards: demo .venv/.dev
	$(BIN)/splitzoo cards zoo -o cards/generated/zoo.md
	rm -rf cards/generated/$(MODEL)
	mkdir -p cards/generated
	cp -r demo-out/card cards/generated/$(MODEL)

lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --upgrade pip
	build/lock/bin/python -m pip install -e '.[dev]'
	build/lock/bin/python -m pip install --no-deps $(REFERENCE)
	build/lock/bin/python -m pip freeze --exclude-editable > constraints.txt
	rm -rf build/lock

clean:
	rm -rf .venv build dist *.egg-info demo-out .pytest_cache .ruff_cache .hypothesis

.venv/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q -c constraints.txt -e .
	touch $@

.venv/.dev: .venv/.base
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	$(PIP) install -q -c constraints.txt --no-deps $(REFERENCE)
	$(PIP) install -q --no-deps --upgrade --target .venv/sc2bench-0.0.3 $(OLD_REFERENCE)
	touch $@
