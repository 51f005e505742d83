# Two commands on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
WORKERS ?= 2

.PHONY: help setup demo test test-slow lint docs wheel clean

help:
	@echo "make demo       set up, sample a model that is there, train one on the bundled digits, write pictures to out/demo"
	@echo "make test       set up, run the tests"
	@echo "make test-slow  the tests that take minutes too"
	@echo "make lint       ruff, pyright and codespell"
	@echo "make docs       build the site into out/site; it fails on a link that leads nowhere"
	@echo "make wheel      build a wheel and a source archive into dist, and check them"

setup: $(VENV)/.ready

# torch first and pinned: a newer build brings several GB of CUDA packages. spikingjelly and norse are for the tests
# alone and without their dependencies, of which they need only loguru.
$(VENV)/.ready: pyproject.toml setup.py constraints.txt $(wildcard src/sddpm/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps spikingjelly==2.0.0 loguru norse==1.1.0
	touch $@

demo: setup
	$(BIN)/sddpm sample fashion-mnist-4 --count 36 --out out/demo/fashion-mnist.png --force
	$(BIN)/python examples/demo.py

test: setup
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(WORKERS)

test-slow: setup
	$(BIN)/python -m pytest --numprocesses $(WORKERS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/codespell

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: setup
	rm -rf dist
	$(BIN)/python -m build --quiet --outdir dist
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist out src/*.egg-info
