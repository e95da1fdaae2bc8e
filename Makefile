# CRM Bridge: `make help` lists what there is. Everything sets itself up first.

PYTHON ?= python3.13
VENV := .venv
BIN := $(VENV)/bin
# A test of the bundle often waits, for a turn or a timeout, so there is one more than there are cores.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(8, 1 + os.cpu_count()))')
# Inside the folder that would be missed first if somebody deleted a part of it.
SET_UP := $(VENV)/lib/python3.13/site-packages/.set-up

.DEFAULT_GOAL := help
.PHONY: help demo run test check unit integration faults faults-long outage long lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: $(SET_UP) ## Start everything here, play every flow, show what happened
	@$(BIN)/python -m local.demo

run: $(SET_UP) ## Start everything here and leave it running; OPTIONS="--port 4000" takes other ports
	@$(BIN)/python -m local $(OPTIONS)

test: check unit integration ## Everything that CI runs

check: $(SET_UP) ## Formatting, lint, types, the template
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	AWS_DEFAULT_REGION=eu-west-1 $(BIN)/cfn-lint template.yaml

unit: $(SET_UP) ## Tests without a network
	$(BIN)/pytest -n auto --maxprocesses 8 tests/unit

integration: $(SET_UP) ## Tests of the whole bundle over real HTTP, and a slice of the fault matrix
	$(BIN)/pytest -n $(WORKERS) tests/integration tests/faults

faults: $(SET_UP) ## The fault matrix: every call of every flow fails in every way (long; OPTIONS="--flow key_link")
	@$(BIN)/python -m tests.faults $(OPTIONS)

faults-long: $(SET_UP) ## Ten thousand random schedules of all these faults (an hour; OPTIONS="--seed 7")
	@$(BIN)/python -m tests.faults.schedules $(OPTIONS)

outage: $(SET_UP) ## A vendor is down for a simulated day, and ten thousand events come
	@$(BIN)/python -m tests.faults.outage $(OPTIONS)

long: $(SET_UP) ## The long runs: a thousand made-up people field for field, a hundred rounds of twenty at once
	PEOPLE=1000 ROUNDS=100 $(BIN)/pytest -n $(WORKERS) tests/integration -k "many_people or round_after_round"

lock: $(SET_UP) ## Renew the exact, hashed requirements out of the *.in files
	$(BIN)/uv pip compile --upgrade --universal --python-version 3.13 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --quiet layers/shared/requirements.in -o layers/shared/requirements.txt
	$(BIN)/uv pip compile --upgrade --universal --python-version 3.13 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --quiet requirements-dev.in -o requirements-dev.txt

clean: ## Remove what was installed and built
	rm -rf $(VENV) .aws-sam .local .mypy_cache .pytest_cache .ruff_cache

# The stamp is written last, so that a set-up that was interrupted is done again, from scratch.
$(SET_UP): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null || \
		{ echo "Python 3.13 is needed, and $(PYTHON) is not it. Name one: make PYTHON=/path/to/python3.13"; exit 1; }
	@echo "Setting up $(VENV) (about a minute, once) ..."
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
