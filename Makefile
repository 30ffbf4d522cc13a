# make demo   set up .venv, compare the shipped CIFAR-10 networks offline, say where the report is
# make test   the quick tests; test-all: the slow ones too; lint; bench; docs; clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export CMBENCH_CACHE ?= $(CURDIR)/.cmbench

.PHONY: demo test test-all lint bench docs clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

# An extra of pyproject.toml: $(VENV)/.extra-test is cmbench with what the tests need.
$(VENV)/.extra-%: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$*]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/cmbench run cifar10_nfe --tag quick --results demo

test: $(VENV)/.extra-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

test-all: $(VENV)/.extra-test $(VENV)/.extra-ray
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'not gpu and not network'

lint: $(VENV)/.extra-test
	$(BIN)/ruff check cmbench models tests benchmarks examples
	$(BIN)/ruff format --check cmbench models tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/python tests/check_docstrings.py cmbench models benchmarks examples

bench: $(VENV)/.extra-test
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: $(VENV)/.extra-docs
	$(BIN)/python docs/write_cli_reference.py
	$(BIN)/python docs/write_suite_reference.py
	$(BIN)/python docs/write_llms_txt.py
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

clean:
	rm -rf $(VENV) .cmbench dist build .pytest_cache .mypy_cache .ruff_cache
