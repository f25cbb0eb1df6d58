# The front door. Each target sets up what it needs: git, make and python3 (3.11 or later, with venv) are enough.
#
#   make run      install into .venv and serve; without ORIGIN an embedded Postgres is started
#   make test     check, then every test, on the embedded PostgreSQL 16 and 18
#
# Variables: PYTHON (interpreter for .venv), ORIGIN (origin URL for run), ARGS (further arguments of any target's tool).

PYTHON ?= python3
VENV ?= .venv
ORIGIN ?=
ARGS ?=
SOAK_SECONDS ?= 600

BIN := $(VENV)/bin
PY := $(BIN)/python
SOURCES := hyperdrive kvstore d1store vectorstore bench tests

.DEFAULT_GOAL := help
.PHONY: help run compiled demo fmt check test drivers matrix bench bench-quick bench-guard round-trips soak fuzz cover up down clean
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environment ------------------------------------------------------------------------------------------------

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] + "; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras: `make run` does not wait for what only the tests need.
$(VENV)/.run-stamp: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.test-stamp: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[test,bench]'
	@touch $@ $(VENV)/.run-stamp

$(VENV)/.drivers-stamp: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[test,bench,matrix]'
	@touch $@ $(VENV)/.test-stamp $(VENV)/.run-stamp

# The part in C (docs/compiled.md). pip has built it with the rest, so this is for sources that have changed since; a build that fails,
# for want of a compiler or of the network, leaves what runs without it.
LANE := $(wildcard $(addprefix hyperdrive/,proxy/_lane*.[ch] cache/*.py pool/*.py proxy/*.py session/*.py sql/*.py)) setup.py

$(VENV)/.lane-stamp: $(LANE) | $(VENV)/.run-stamp
	@$(PY) -c 'import sys; from hyperdrive.proxy import lane; sys.exit(not lane.IS_COMPILED)' \
	  || $(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e . \
	  || echo 'the part in C could not be compiled; everything works without it'
	@touch $@

# --- use --------------------------------------------------------------------------------------------------------

run: $(VENV)/.run-stamp $(VENV)/.lane-stamp ## serve ORIGIN, or an embedded Postgres in .hyperdrive/
	$(BIN)/hyperdrive serve $(ORIGIN) $(ARGS)

compiled: $(VENV)/.run-stamp $(VENV)/.lane-stamp ## compile the part in C anew, where there is a compiler, and say whether it is used
	@$(BIN)/hyperdrive --version

demo: $(VENV)/.run-stamp $(VENV)/.lane-stamp ## direct and through the proxy, over a simulated distance
	$(BIN)/hyperdrive demo $(ARGS)

up: ## proxy and Postgres with docker compose
	docker compose -f docker/compose.yaml up --build --detach --wait

down: ## stop what `up` started; its data stays in the volume
	docker compose -f docker/compose.yaml down

# --- work -------------------------------------------------------------------------------------------------------

fmt: $(VENV)/.test-stamp ## format and fix
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

check: $(VENV)/.test-stamp ## ruff, mypy, floors: seconds
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(PY) -m pytest -q -p no:randomly tests/test_floors.py

test: check $(VENV)/.lane-stamp ## check, then every test on the embedded servers
	$(PY) -m pytest -m 'not drivers and not matrix and not soak' $(ARGS)

drivers: $(VENV)/.test-stamp ## every driver, also those from npm, Maven, Go, Perl and Ruby where they exist
	$(PY) -m tests.drivers.run $(ARGS)

matrix: $(VENV)/.drivers-stamp ## other PostgreSQL versions: in containers, or those of MATRIX_URLS="postgresql://… …"
	$(PY) -m pytest -m matrix $(ARGS)

bench: $(VENV)/.test-stamp $(VENV)/.lane-stamp ## every benchmark, side by side with PgBouncer where it is installed: about ten minutes
	$(PY) -m bench $(ARGS)

bench-quick: $(VENV)/.test-stamp $(VENV)/.lane-stamp ## the same in under two minutes
	$(PY) -m bench --quick $(ARGS)

bench-guard: $(VENV)/.test-stamp $(VENV)/.lane-stamp ## fails when round trips, or CPU relative to PgBouncer, became worse than what is checked in
	$(PY) -m bench guard $(ARGS)

round-trips: $(VENV)/.test-stamp ## round trips per operation over a distance: direct, PgBouncer, us
	$(PY) -m bench round-trips $(ARGS)

soak: $(VENV)/.test-stamp ## hours in minutes: random conversations by the thousand, faults and load for SOAK_SECONDS
	HYPERDRIVE_SOAK=1 $(PY) -m pytest --timeout=0 tests/conformance tests/properties tests/hazards/test_fuzz.py $(ARGS)
	HYPERDRIVE_SOAK_SECONDS=$(SOAK_SECONDS) $(PY) -X dev -m pytest -m soak --timeout=0 $(ARGS)

fuzz: $(VENV)/.test-stamp ## property tests with many more examples
	HYPOTHESIS_PROFILE=fuzz $(PY) -m pytest --timeout=0 -m hypothesis $(ARGS)

cover: $(VENV)/.test-stamp ## which lines no test reaches
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m 'not drivers and not matrix and not soak' $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

clean: ## remove what the targets above made; .hyperdrive/ (data) stays
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache bench/results
	rm -f hyperdrive/proxy/_lane.*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
