# For people. What runs where: `make help`.

SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin

# What `make test` runs, and in which order: the seed that an earlier run printed repeats it.
TESTS ?= tests
SEED ?= 0

# More options for `hero up`, such as ARGS="--port 9101".
ARGS ?=

.DEFAULT_GOAL := help
# Options for the benchmark, such as BENCH="--only keepalive,tls --peers nginx,hero".
BENCH ?= --again 2 --save

.PHONY: help run test trial lint types docs demo bench-router format clean

help:
	@echo "make run     install what is missing and start a node in the foreground"
	@echo "make test    lint, types, and every test in random order (TESTS=tests.router SEED=123)"
	@echo "make demo    a master and a worker on this machine, and a guest deployed across them"
	@echo "make bench-router   the router against other proxies (BENCH=--quick tries whether it works)"
	@echo "make docs    write the generated reference pages"
	@echo "make lint    format and lint checks alone;  make types: mypy alone"
	@echo "make format  put the code into the one format"
	@echo "make clean   remove what the other targets made"

run: $(VENV)/.hero-run
	@packaging/system-packages run
	@command -v hero >/dev/null || \
		echo "For the hero command, in another terminal: . $(CURDIR)/$(BIN)/activate"
	@$(BIN)/hero up --mode local $(ARGS)

demo: $(VENV)/.hero-run
	@packaging/system-packages run
	@$(BIN)/python demo/tour.py

test: lint types trial

trial: $(VENV)/.hero-dev
	@packaging/system-packages test
	$(BIN)/python -m twisted.trial --random=$(SEED) $(TESTS)

lint: $(VENV)/.hero-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.hero-dev
	$(BIN)/mypy

format: $(VENV)/.hero-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-router: $(VENV)/.hero-dev
	$(BIN)/python -m bench.router $(BENCH)

docs: $(VENV)/.hero-dev
	$(BIN)/python -m hero.rpc.reference > docs/reference/rpc.md
	$(BIN)/python -m hero.cli.reference > docs/reference/cli.md

$(VENV)/.hero-run: setup.cfg pyproject.toml packaging/environment
	@packaging/environment $(VENV) run

$(VENV)/.hero-dev: setup.cfg pyproject.toml packaging/environment
	@packaging/environment $(VENV) dev

clean:
	rm -rf $(VENV) .tox build dist hero.egg-info .mypy_cache .ruff_cache .hypothesis
	rm -rf _trial_temp* docs/reference/rpc.md docs/reference/cli.md twisted/plugins/dropin.cache
	find hero tests twisted demo -name __pycache__ -type d -prune -exec rm -rf {} +
