# Two commands do everything on a fresh machine:  make run   make test
PYTHON ?= python3
VENV := .venv
INTEROP := .venv-interop
BIN := $(VENV)/bin

.PHONY: run test promises interop check format screenshots clean

run: $(VENV)/.run-ready
	$(BIN)/python -m ctrlab serve

test: $(VENV)/.dev-ready
	@bash .ci/ensure-chromium
	@bash .ci/test $(BIN)/python

# Promises of time at their real limits, one test after the other: on a machine that does nothing else.
promises: $(VENV)/.dev-ready
	@bash .ci/ensure-chromium
	$(BIN)/python -m pytest -m promise tests/test_time_promises.py

# Models trained in FuxiCTR and DeepCTR-Torch; both ask for much that ctrlab does not, so they have an environment of their own.
interop: $(INTEROP)/.ready
	$(INTEROP)/bin/python -m pytest tests/interop

check: $(VENV)/.dev-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# README pictures, taken from the running dashboard.
screenshots: $(VENV)/.dev-ready
	@bash .ci/ensure-chromium
	$(BIN)/python docs/take_screenshots.py

# torch comes first and alone: otherwise another package may ask for a larger build of it.
$(VENV)/.run-ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ctrlab needs Python 3.11 or newer: make run PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev-ready: $(VENV)/.run-ready requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(INTEROP)/.ready: requirements.txt requirements-interop.txt pyproject.toml
	test -x $(INTEROP)/bin/python || $(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-interop.txt
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

clean:
	rm -rf $(VENV) $(INTEROP) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
