# Two commands on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

# Runs, fits, and lies where it was made: one that was left by another Python, or copied here, does not.
FITS = $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && \
	grep -qsF '$(CURDIR)/.venv' $(BIN)/activate

PYTEST = -m pytest -n logical --maxprocesses 4 --dist loadfile

.PHONY: help install environment quickstart test test-slow test-oldest .venv-oldest lint

help:
	@echo "make quickstart   make .venv, install, train CLIP and CLOC on rendered scenes, swap, score (about 15 minutes)"
	@echo "make test         make .venv if need be and run all tests"
	@echo "make test-slow    run the tests marked slow, which make test leaves out"
	@echo "make test-oldest  make .venv-oldest with the oldest versions that pyproject.toml allows and run all tests there"
	@echo "make lint         ruff, types and import contracts"

install:
	@cmp -s pyproject.toml $(BIN)/.installed && $(FITS) || $(MAKE) --no-print-directory environment GOAL='$(MAKECMDGOALS)'

environment:
	@$(FITS) || $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v in ((3, 11), (3, 12)) else f"Python 3.11 or 3.12 is needed, {sys.executable} is {v[0]}.{v[1]}; run: make PYTHON=python3.12 $(GOAL)")'
	@$(FITS) || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e '.[dev]'
	@cp pyproject.toml $(BIN)/.installed

quickstart: install
	$(BIN)/python -m cloc.scenes --out data/scenes
	$(BIN)/deepspeed cloc/pretrain.py objective=clip run.name=clip
	$(BIN)/deepspeed cloc/pretrain.py
	$(BIN)/python -m mllm_bridge.swap --encoder cloc
	$(BIN)/python benchmarks/run.py region_recognition region_retrieval refcoco lvis --data data --model cloc --against clip --out runs/quickstart
	@echo
	@echo "rows and predictions: runs/quickstart/results.json     exports: runs/clip*/export, runs/cloc*/export"
	@echo "the swapped LLaVA: runs/swap-*     next: source .venv/bin/activate, then the three commands of README.md"

test: install
	$(BIN)/python $(PYTEST)

test-slow: install
	$(BIN)/python $(PYTEST) -m slow

test-oldest:
	@cmp -s pyproject.toml .venv-oldest/.installed || $(MAKE) --no-print-directory .venv-oldest
	.venv-oldest/bin/python $(PYTEST)

.venv-oldest:
	$(PYTHON) -m venv --clear .venv-oldest
	$(PYTHON) tools/oldest.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install -q -c .venv-oldest/constraints.txt -e '.[dev]'
	@cp pyproject.toml .venv-oldest/.installed

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
