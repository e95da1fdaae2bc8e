# CRM Bridge: `make help` lists what there is. Everything sets itself up first.

PYTHON ?= python3.13
VENV := .venv
BIN := $(VENV)/bin
# A test of the bundle often waits, for a turn or a timeout, so there are more than there are cores.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(8, 2 + os.cpu_count()))')
# Inside the folder that would be missed first if somebody deleted a part of it.
SET_UP := $(VENV)/lib/python3.13/site-packages/.set-up
# Each group of pyproject.toml that fits no other has an environment of its own: $(VENV)-sam, $(VENV)-docs and so on.
SEPARATE := sam checkov clients docs runtime
set_up = $(VENV)-$(1)/lib/python3.13/site-packages/.set-up
SAM := MAKEFLAGS= PYTHON=python3.13 PATH="$(CURDIR)/$(BIN):$$PATH" SAM_CLI_TELEMETRY=0 $(VENV)-sam/bin/sam
AXE := .axe/axe.min.js
AXE_VERSION := 4.14.1
AXE_SHA512 := 1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b734f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5

ARCHITECTURE ?= arm64
THIS_MACHINE := $(if $(filter x86_64,$(shell uname -m)),x86_64,arm64)
BUNDLE := .aws-sam/bundle/.built

# pip trusts the machine's certificates, such as a company proxy's; uv does so only when told.
export UV_SYSTEM_CERTS ?= 1
# Otherwise each of the many processes of a test run compiles all modules and tests for itself.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo run test check docs secure unit integration clients browser chromium screenshots fuzz wheel build build-compare bundle bench sam-invoke sam-api smoke smoke-emulator faults faults-long outage onboarding mutants long openapi pages permissions lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: $(SET_UP) ## Start everything on this machine and play every flow
	@$(BIN)/python -m local.demo

run: $(SET_UP) ## Start everything on this machine and leave it running; OPTIONS="--port 4000" takes other ports
	@$(BIN)/python -m local $(OPTIONS)

test: ## Everything that CI runs
	@$(MAKE) --no-print-directory -j 2 check secure docs fuzz $(BUNDLE)
	@$(MAKE) --no-print-directory unit integration clients bundle

check: $(SET_UP) ## Formatting, lint, types, the template
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	AWS_DEFAULT_REGION=eu-west-1 $(BIN)/cfn-lint template.yaml

secure: $(call set_up,checkov) ## Check the template by Checkov's security rules; exceptions are in .checkov.yaml and beside the resource
	$(VENV)-checkov/bin/checkov --config-file .checkov.yaml

# Not with --quiet: mkdocs then drops the warnings before --strict counts them.
docs: $(call set_up,docs) ## Build the documentation as a site, into site/
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict
	@! grep -rlE '<(script|link|img|iframe)[^>]+(src|href)="?(https?:)?//' --include=*.html site || \
		{ echo "These pages would load something from another host."; exit 1; }

unit: $(SET_UP) ## Tests without a network, and small models of the protocols
	$(BIN)/pytest -n auto --maxprocesses 8 tests/unit tests/models

integration: $(SET_UP) $(DOCS_SET_UP) chromium $(AXE) ## Tests of the whole bundle over real HTTP, a slice of the fault matrix, the console in a browser
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests/faults tests/browser tests/extending tests/integration

clients: $(SET_UP) $(call set_up,clients) ## Generate a client from docs/openapi-clients.json and test it
	$(BIN)/pytest tests/clients

browser: $(SET_UP) $(DOCS_SET_UP) chromium $(AXE) ## Only the tests of console and documentation in a real browser (Debian's chromium)
	$(BIN)/pytest tests/browser

chromium:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium chromium-driver >/dev/null; } || \
		echo "chromium cannot be installed here; the tests will say what is missing."

# Looks for what somebody who sees, hears or moves differently cannot use; only the tests of the console run it.
$(AXE):
	@mkdir -p $(@D) && cd $(@D) && npm pack --silent axe-core@$(AXE_VERSION) >/dev/null && \
		echo "$(AXE_SHA512)  axe-core-$(AXE_VERSION).tgz" | shasum -a 512 -c --status && \
		tar -xzf axe-core-$(AXE_VERSION).tgz --strip-components=1 package/axe.min.js || \
		echo "axe-core cannot be had here by npm; the tests will say what is missing."

screenshots: $(SET_UP) ## Write the pictures in docs/images again
	@$(BIN)/python -m tests.browser.screenshots

fuzz: $(SET_UP) ## Send random requests and compare the responses with docs/openapi.json; OPTIONS="--long --examples 100" makes more
	@$(BIN)/python -m tests.fuzz $(OPTIONS)

wheel: $(SET_UP) ## Build the command line as a wheel, into dist/
	@$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python

build: $(SET_UP) $(call set_up,sam) ## Build the functions and their layer for arm64, or with ARCHITECTURE=x86_64
	ARCHITECTURE=$(ARCHITECTURE) $(SAM) build --parameter-overrides Architecture=$(ARCHITECTURE)
	@$(BIN)/python -m local.artifacts

# The same template without our Makefiles, so that SAM builds as it does by default.
WITHOUT_MAKEFILES := sed -e '/Metadata: {BuildMethod: makefile}/d' -e 's/BuildMethod: makefile/BuildMethod: python3.13/' template.yaml >.aws-sam/default.yaml
build-compare: build ## The same, and compare it with the build of SAM's own builder for Python
	@$(WITHOUT_MAKEFILES)
	$(SAM) build --template .aws-sam/default.yaml --base-dir . --build-dir .aws-sam/default --parameter-overrides Architecture=$(ARCHITECTURE)
	@$(BIN)/python -m local.artifacts --beside .aws-sam/default

bundle: $(SET_UP) $(call set_up,sam) $(call set_up,runtime) $(BUNDLE) ## Test the built functions under AWS's own runtime
	$(BIN)/pytest -n 2 --dist loadfile tests/bundle

# That, and the peers, as SAM builds by default; and the peers with bytecode.
BY_DEFAULT := .aws-sam/by-default/.built
PEERS := .aws-sam/peers/.built
bench: $(SET_UP) $(call set_up,sam) $(call set_up,runtime) $(BUNDLE) $(BY_DEFAULT) $(PEERS) ## Measure the bridge and three peers, and write docs/performance.md (a quarter of an hour; OPTIONS="--only cold")
	@$(BIN)/python -m bench $(OPTIONS)

$(BY_DEFAULT): $(BUNDLE)
	@$(WITHOUT_MAKEFILES)
	$(SAM) build --template .aws-sam/default.yaml --base-dir . --build-dir $(@D) --parameter-overrides Architecture=$(THIS_MACHINE)
	@touch $@

$(PEERS): $(call set_up,sam) bench/template.yaml $(wildcard bench/peers/*/*)
	$(SAM) build --template bench/template.yaml --build-dir $(@D) --parameter-overrides Architecture=$(THIS_MACHINE)
	@rm -rf $(@D)-compiled && cp -R $(@D) $(@D)-compiled
	@$(BIN)/python -m compileall -q --invalidation-mode unchecked-hash $(@D)-compiled
	@touch $@

FLOW ?= create_site
EVENT ?= new
sam-invoke: $(BUNDLE) ## One event in a container: FLOW=create_site EVENT=new; needs a running `make run OPTIONS=--containers`
	@$(BIN)/python -m local.sam invoke $(FLOW) $(EVENT) $(OPTIONS)

sam-api: $(BUNDLE) ## The HTTP API in containers on port 3010; needs a running `make run OPTIONS=--containers`
	@$(BIN)/python -m local.sam start-api $(OPTIONS)

# Beside what is deployed, which may be for another architecture.
$(BUNDLE): $(call set_up,sam) template.yaml $(shell find functions layers -type f -not -path '*/__pycache__/*')
	ARCHITECTURE=$(THIS_MACHINE) $(SAM) build --build-dir $(@D) --parameter-overrides Architecture=$(THIS_MACHINE)
	@touch $@

smoke: build ## Make a scratch stack on AWS, try everything and delete it: STACK=crm-bridge-smoke OPTIONS="--vendors https://your-tunnel"
	@$(BIN)/python -m tests.smoke --stack $(STACK) $(OPTIONS)

smoke-emulator: $(SET_UP) $(call set_up,sam) $(BUNDLE) ## The same on ministack, without an account; it lists what ministack cannot do
	@$(BIN)/python -m tests.smoke --stack crm-bridge-smoke --emulator $(OPTIONS)

faults: $(SET_UP) ## The fault matrix: every call of every flow fails in every way (long; OPTIONS="--flow key_link")
	@$(BIN)/python -m tests.faults $(OPTIONS)

faults-long: $(SET_UP) ## Ten thousand random schedules of these faults (an hour; OPTIONS="--seed 7")
	@$(BIN)/python -m tests.faults.schedules $(OPTIONS)

outage: $(SET_UP) ## A vendor is down for a simulated day, and ten thousand events come
	@$(BIN)/python -m tests.faults.outage $(OPTIONS)

onboarding: $(SET_UP) ## Import ten thousand customers by the command line, with outages and a stop (minutes)
	@$(BIN)/python -m tests.onboarding $(OPTIONS)

mutants: $(SET_UP) ## Break the engine in small ways, one at a time, and list those that no test notices (long; OPTIONS="--again")
	@$(BIN)/python -m tests.mutants $(OPTIONS)

long: $(SET_UP) ## The long runs: integration tests compared with moto, a thousand made-up people, a hundred rounds of twenty at once, larger models
	LONG=1 PEOPLE=1000 ROUNDS=100 $(BIN)/pytest --hypothesis-profile=default -n $(WORKERS) tests/integration
	LONG=1 $(BIN)/pytest --hypothesis-profile=default -n auto --maxprocesses 8 --timeout 3600 tests/unit tests/models
	LONG=1 $(BIN)/pytest --hypothesis-profile=default -n $(WORKERS) --timeout 3600 tests/faults
	LONG=1 $(BIN)/pytest -n 2 --dist loadfile tests/bundle

readability: $(SET_UP) ## Show how easy each page is to read, and the longest sentences; OPTIONS="--commit v1.0.0" measures another version
	@$(BIN)/python -m docs.readability $(OPTIONS)

permissions: $(SET_UP) ## Write the table in docs/permissions.md from the functions' recorded calls to AWS
	REWRITE=1 $(BIN)/pytest -q tests/integration/test_permissions.py

openapi: $(SET_UP) ## Write docs/openapi.json, its other editions and docs/problems.md from models, routes and recorded responses
	@$(BIN)/python -m openapi

pages: $(SET_UP) ## Write docs/settings.md, docs/command-reference.md and the index of the decisions
	@$(BIN)/python -m docs

LOCK := $(BIN)/uv pip compile --upgrade --universal --python-version 3.13 --generate-hashes --no-header --no-emit-index-url \
	--no-emit-find-links --quiet
PEERS_LOCKED := $(patsubst %.in,%,$(wildcard bench/peers/*/requirements.in))
# The package that is left out is an asset store of mermaid's package for PyPI, which nothing here reads.
lock: $(SET_UP) ## Renew the exact, hashed requirements of the groups in pyproject.toml
	$(LOCK) --group layer -o layers/shared/requirements.txt
	$(LOCK) --group dev --constraints layers/shared/requirements.txt -o requirements/dev.txt
	for group in $(SEPARATE); do $(LOCK) --group $$group --no-emit-package artoo-artifacts -o requirements/$$group.txt || exit 1; done
	for peer in $(PEERS_LOCKED); do $(LOCK) $$peer.in -o $$peer.txt || exit 1; done

clean: ## Remove what was installed and built
	rm -rf $(VENV) $(addprefix $(VENV)-,$(SEPARATE)) .axe dist site .aws-sam .local .mutants .mypy_cache .pytest_cache .ruff_cache

# The stamp is written last, so that a set-up that was interrupted is done again, from scratch.
$(SET_UP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null || { printf '%s\n' \
		"$(PYTHON) is not Python 3.13 with venv, or is missing. Install it, and run the same command again:" \
		"  Debian 13, or WSL with it       sudo apt install python3.13-venv" \
		"  older Debian, Ubuntu, WSL       curl -LsSf https://astral.sh/uv/install.sh | sh; then, in a new shell: uv python install 3.13" \
		"  macOS                           brew install python@3.13" \
		"Or name one that is not on the path: make PYTHON=/path/to/python3.13"; exit 1; }
	@echo "Setting up $(VENV) ..."
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@sed -n '/^uv==/,/[^\\]$$/p' requirements/dev.txt >$(VENV)/uv.txt  # uv takes seconds, and pip minutes
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# All that is to be installed is in the locked files, so nothing is resolved again.
$(foreach group,$(SEPARATE),$(call set_up,$(group))): $(VENV)-%/lib/python3.13/site-packages/.set-up: requirements/%.txt | $(SET_UP)
	@echo "Setting up $(VENV)-$* ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-$*
	@$(BIN)/uv pip install --quiet $(if $(filter runtime,$*),--compile-bytecode) --python $(VENV)-$* --require-hashes --no-deps -r $<
	@touch $@
