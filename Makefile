# `make` lists the targets. Any Python from 3.11 on will do: `make test PYTHON=python3.12`.
# The first Python used gets .venv; another version gets a folder of its own, such as .venv-3.12.
PYTHON ?= python3
WORKERS ?= 2

# "VERSION LIST EXECUTABLE" of PYTHON. The second try is for pyenv, whose command python3.12 only
# runs while such a version is selected: select the newest that has the command.
PROBE := -c 'import sys; v = sys.version_info; \
	known = "py311" if (3, 11) == v[:2] else "py312" if v >= (3, 12) else "none"; \
	print("%d.%d %s %s" % (v[0], v[1], known, sys.executable))'
SELECT = PYENV_VERSION=$$(pyenv whence $(PYTHON) 2>/dev/null | tail -n 1)
FOUND := $(shell $(PYTHON) $(PROBE) 2>/dev/null || $(SELECT) $(PYTHON) $(PROBE) 2>/dev/null)
VERSION := $(word 1,$(FOUND))
# Python 3.13 and later install the list of 3.12.
LIST := requirements/$(filter-out none,$(word 2,$(FOUND))).txt
INTERPRETER := $(wordlist 3,99,$(FOUND))

VENV := .venv
ifneq ($(wildcard .venv/lib),)
ifeq ($(wildcard .venv/lib/python$(VERSION)),)
VENV := .venv-$(VERSION)
endif
endif
BIN := $(VENV)/bin
STAMP := $(VENV)/installed-$(notdir $(LIST))

.PHONY: help setup demo test test-slow faults faults-long fuzz lint bench clean

help:
	@sed -n 's/^## //p' Makefile

## make setup      a virtual environment with the pinned packages
setup: $(STAMP)

$(STAMP): $(wildcard $(LIST))
	$(if $(wildcard $(LIST)),,$(error PYTHON=$(PYTHON) is $(or $(VERSION),not found) and must be Python 3.11 or later; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12))
	test -x $(BIN)/python || '$(INTERPRETER)' -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(LIST)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

## make demo       baseline against multi-task on a small real run: two seeds, paired
demo: $(STAMP)
	$(BIN)/python -m rank_ssl.evidence --config=experiments/quickstart.py \
		--arms=baseline,multitask --seeds=0,1 --workdir=runs/demo

## make test       the fast tests (WORKERS=2 processes)
test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

## make test-slow  the tests that take longer than about ten seconds each
test-slow: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

## make faults     the tests of faults and bad input, and a table: what was injected, what came out
faults: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --faults

## make faults-long  these with their long forms: 20 kills, 2,000 damaged files for each reader
faults-long: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --faults -m fault

## make fuzz       damaged files for each reader of files (FILES=2000)
FILES ?= 2000
fuzz: $(STAMP)
	$(BIN)/python tests/fuzzing.py --files=$(FILES)

## make lint       style, format and types
lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

## make bench      speed of the data pipeline, the ladders, one forward per image, and the step
bench: $(STAMP)
	$(BIN)/python -m rank_ssl.bench data
	$(BIN)/python -m rank_ssl.bench ladder
	$(BIN)/python -m rank_ssl.bench pairs
	$(BIN)/python -m rank_ssl.bench step

## make clean      remove caches, build files and runs/demo; environments stay
clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist ./*.egg-info runs/demo
	find rank_ssl data_prep experiments tests -name __pycache__ -prune -exec rm -rf {} +
