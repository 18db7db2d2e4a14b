# Every target stands alone: it makes .venv from the lock first, or brings it up to date.

PYTHON ?= python3
# Add --upgrade to take newer releases: make lock LOCKFLAGS=--upgrade
LOCKFLAGS ?=
# How long a soak lasts: make soak MINUTES=30
MINUTES ?= 240
# For `make test`: make test PYTEST_OPTIONS="--cov"
PYTEST_OPTIONS ?=

BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo dev serve test clients check lint types load-test verify-deploy soak faults bench lock clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## Publish bundled real events, moved to end yesterday, and show what came out
	$(BIN)/python -m eval.demo

dev: $(READY) ## Publish what is missing in the demo, and start the Dagster UI on it, on port 3000 or PORT
	$(BIN)/python -m eval.demo --publish
	. ./.demo/env; cd .demo && exec ../$(BIN)/dpdau ui --port "$${PORT:-3000}"

serve: $(READY) ## Publish what is missing in the demo, and serve the HTTP API on it, on port 8000 or PORT
	$(BIN)/python -m eval.demo --publish
	@echo 'In another shell: . .demo/env; curl -H "X-API-Key: $$SERVICE_API_KEY" http://127.0.0.1:$(or $(PORT),8000)/status'
	. ./.demo/env; cd .demo && exec ../$(BIN)/dpdau serve --port "$${PORT:-8000}"

test: $(READY) ## Ask every behaviour once: the tests, except the ones marked slow, weeks, browser, clients or containers
	$(BIN)/python -m pytest -m "not slow and not weeks and not browser and not clients and not containers" -n 2 --dist worksteal $(PYTEST_OPTIONS)

clients: $(READY) ## Check the TypeScript client's types, and test it against a running server
	$(BIN)/python -m pytest dpdau_tests/clients -m clients

check: $(READY) ## Publish what is missing in the demo, and ask every check of its store
	$(BIN)/python -m eval.demo --check

lint: $(READY) ## Check style, format and placeholders
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/check_placeholders.py

types: $(READY) ## Check types with pyright
	$(BIN)/pyright

load-test: $(READY) ## Clients side by side against the API, by Locust: LOAD_USERS, LOAD_RUNTIME, LOAD_HOST; see docs/monitoring.md
	$(BIN)/python -m eval.load_test

verify-deploy: $(READY) ## Smoke-test a running deployment, and write nothing: make verify-deploy URL=https://...
	$(BIN)/python tools/verify_deploy.py "$(URL)"

soak: $(READY) ## The long tests for MINUTES, shared among them by weight, every choice under a printed seed
	$(BIN)/python -m dpdau_tests.support.soak --minutes $(MINUTES)

faults: $(READY) ## Plant faults in copies of the project, one by one, and see that the tests catch each (about twenty minutes)
	$(BIN)/python tools/plant_faults.py

bench: $(READY) ## Print the measures against bare DuckDB
	$(BIN)/python -m eval.bench

# The full lock comes first: the runtime lock is the part of it that runs without the extra.
COMPILE := $(BIN)/pip-compile --quiet --no-strip-extras --generate-hashes --allow-unsafe --no-header \
	--no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

lock: .venv/.locked ## Write the locks from pyproject.toml: to run, with the API, to work on it
	$(COMPILE) $(LOCKFLAGS) --extra dev --output-file requirements-dev.lock pyproject.toml
	sed -i '/^dpdau\[/,+1d; /^# WARNING.*hashed/,+1d' requirements-dev.lock  # the project's own extra, of no index
	cp requirements-dev.lock requirements-api.lock
	$(COMPILE) --extra api --output-file requirements-api.lock pyproject.toml
	cp requirements-dev.lock requirements.lock
	$(COMPILE) --output-file requirements.lock pyproject.toml

clean: ## Remove .venv, the demo's data and caches; never ./data
	rm -rf .venv .demo .artifacts .pytest_cache .ruff_cache .hypothesis build dist clients/ts/node_modules clients/ts/dist
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

.venv/.locked: requirements-dev.lock
	@command -v $(PYTHON) >/dev/null 2>&1 || \
	  { echo "$(PYTHON) was not found: install Python 3.11 or newer, or say make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$$($(PYTHON) --version) is too old: dpdau needs 3.11 or newer. Say make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module: on Debian or Ubuntu, apt-get install python3-venv." >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

$(READY): .venv/.locked pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q dpdau_assets resources sensors eval  # or each start compiles, where nothing is written
	@$(BIN)/python -m pip check || { echo "The lock does not satisfy pyproject.toml: make lock." >&2; exit 1; }
	@touch $@
