# Every command of the project. `make help` lists them; nothing has to be installed or activated by hand.

PYTHON  ?= python3
VENV    ?= .venv
UV      ?= uv
WORKERS ?= 2
ARGS    ?=
FIGURES ?= build/benchmarks
SIZED   := profiles events segments upload scan

BIN   := $(VENV)/bin
STAMP := $(VENV)/installed
NODE  := node_modules/.installed
TYPES := examples/frontend/api.d.ts
RELEASED := openapi/released.json
NPX   := PATH="$(abspath $(BIN)):$$PATH" $(BIN)/npx --no-install

# Each command starts processes, of which each would compile the service anew.
unexport PYTHONDONTWRITEBYTECODE

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export REDOCLY_TELEMETRY := off
export REDOCLY_SUPPRESS_UPDATE_NOTICE := true

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=$(PYTHON) (3.11 to 3.14), VENV=$(VENV), WORKERS=$(WORKERS) (tests at a time), ARGS (handed on by run, demo, test, bench)"

.PHONY: install
install: $(STAMP) ## make the virtual environment, or bring it up to date

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null \
	  || { echo "ingestd needs Python 3.11 to 3.14; '$(PYTHON)' is not: name one with 'make PYTHON=python3.13 ...'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "'$(PYTHON)' cannot make virtual environments: install its venv package (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml requirements/dev.txt | $(BIN)/pip
	@echo "Installing into $(VENV): about a minute the first time"
	@$(BIN)/pip install --quiet --no-compile --no-deps --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: run
run: $(STAMP) ## start the service for real use: state in ./data, HTTP on 8080, SFTP on 2222
	@$(BIN)/ingestd serve $(ARGS)

.PHONY: demo
demo: $(STAMP) ## show the whole way on a throw-away service: SFTP push, profiles, error file, a segment that refreshes itself, an upload with its mapping, a filter, webhooks
	@$(BIN)/ingestd demo $(ARGS)

.PHONY: test
test: $(STAMP) ## run the tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

.PHONY: nightly
nightly: $(STAMP) ## run the generated tests at length: 10,000 files for the scanner, sequences of requests; over an hour
	@TEST_FACTOR=20 $(BIN)/python -m pytest -n $(WORKERS) --timeout=7200 tests/domain tests/pipeline tests/store/load \
	  tests/api/test_schemathesis.py $(ARGS)

.PHONY: test-faults
test-faults: $(STAMP) ## run the fault tests at length: every call broken in every way; half an hour
	@$(BIN)/python -m pytest -m fault tests/faults $(ARGS)

.PHONY: check
check: $(STAMP) $(TYPES) ## what CI checks besides the tests: style, types, floors, dependencies, spelling, the API's document
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/codespell
	test ! -x $(BIN)/hadolint || $(BIN)/hadolint Dockerfile
	$(NPX) redocly lint openapi/openapi.json
	@if test -e $(RELEASED); then $(NPX) redocly diff $(RELEASED) openapi/openapi.json; \
	else echo "No release yet: openapi/openapi.json has nothing to be compared with"; fi
	$(NPX) tsc --project examples/frontend
	$(NPX) tsc --project examples/webhooks

# What runs on Node, which comes with the development requirements.
$(NODE): package.json package-lock.json | $(STAMP)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/npm ci --silent
	@touch $@

$(TYPES): openapi/openapi.json $(NODE)
	$(NPX) openapi-typescript $< --output $@

.PHONY: frontend
frontend: $(TYPES) ## serve the example of a frontend on 8000, in front of the service on 8080
	@$(NPX) tsc --project examples/frontend
	@$(BIN)/node examples/frontend/serve.mjs

.PHONY: bench
bench: $(STAMP) ## measure every work with 200 MB, some minutes; or one: make bench ARGS="profiles --mb 200 --json out.json"
	@if test -n '$(ARGS)'; then $(BIN)/python -m benchmarks $(ARGS); else mkdir -p $(FIGURES); \
	for work in $(SIZED) latency; do $(BIN)/python -m benchmarks $$work --mb 200 --json $(FIGURES)/$$work.json || exit 1; done; \
	for work in small merges webhooks; do $(BIN)/python -m benchmarks $$work --json $(FIGURES)/$$work.json || exit 1; done; fi

.PHONY: bench-full
bench-full: $(STAMP) ## measure files of 1 and 5 GB; an hour, and 40 GB of disk
	@mkdir -p $(FIGURES)
	@for mb in 1000 5000; do for work in $(SIZED); do \
	$(BIN)/python -m benchmarks $$work --mb $$mb --json $(FIGURES)/$$work-$$mb.json || exit 1; done; done

.PHONY: fmt
fmt: $(STAMP) ## format the code and mend what can be mended
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

.PHONY: lint
lint: $(STAMP) ## the quick half of check: style only
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: openapi
openapi: $(STAMP) ## write openapi/openapi.json anew from the routes
	@$(BIN)/ingestd openapi > openapi/openapi.json

.PHONY: examples
examples: $(STAMP) ## ask a real service anew for the examples of the OpenAPI document
	@INGESTD_TEST_EXAMPLES=1 $(BIN)/python -m pytest -q tests/api/test_examples.py -k every_operation
	@$(BIN)/ingestd openapi > openapi/openapi.json

.PHONY: migration
migration: $(STAMP) ## start a migration: make migration NAME="one concern"
	@test -n "$(NAME)" || { echo 'name it: make migration NAME="one concern"' >&2; exit 1; }
	@$(BIN)/alembic revision -m "$(NAME)"

.PHONY: migrate
migrate: $(STAMP) ## bring the configured database to the newest schema
	@$(BIN)/ingestd migrate $(ARGS)

# Both files fit 3.11 to 3.14 on every platform and name no download address. Pins stay as they are
# unless ARGS=--upgrade. Needs uv; nothing else here does.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-annotate --no-header pyproject.toml $(ARGS)

.PHONY: lock
lock: ## renew the locked requirements (needs uv)
	$(COMPILE) --output-file requirements/run.txt
	$(COMPILE) --extra dev --constraints requirements/run.txt --output-file requirements/dev.txt

.PHONY: clean
clean: ## remove the virtual environment and every cache; ./data stays
	rm -rf $(VENV) node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests benchmarks migrations -name __pycache__ -type d -prune -exec rm -rf {} +
