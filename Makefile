# Two commands do everything on a machine that has Python >= 3.11 and make:
#   make demo    sets up, deploys both architectures into the embedded cloud, sends predictions (ONCE=1 stops after them)
#   make test    sets up and runs the tests
# The other targets are for working on modelstacks itself; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Builds of PyTorch differ by platform, so it is not in the hashed file; only the transformers engine and its tests need it.
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin

# The system's certificates, so that an organisation's own proxy or index can be reached; pip reads them from a file.
CERTIFICATES := $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem))
export UV_SYSTEM_CERTS ?= true
ifneq ($(CERTIFICATES),)
export REQUESTS_CA_BUNDLE ?= $(CERTIFICATES)
endif

.PHONY: help setup demo test check format lock-requirements reference snapshots soak clean pr

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/  make \1\t/p' $(MAKEFILE_LIST) | expand -t 28

setup: $(VENV)/.toolkit node_modules/.package-lock.json  ## install what the toolkit needs into .venv and node_modules

$(VENV)/.toolkit: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python >= 3.11 on the PATH; install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 4; }
	@echo "setting up $(VENV) from requirements.txt"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed -n -e '/^uv==/,/[^\\]$$/p' -e '/^setuptools==/,/[^\\]$$/p' requirements.txt > $(VENV)/first.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(VENV)/first.txt
	@$(BIN)/uv pip sync --quiet --compile-bytecode --no-build-isolation --python $(BIN)/python --require-hashes requirements.txt \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --require-hashes --requirement requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

node_modules/.package-lock.json: package-lock.json $(VENV)/.toolkit
	@echo "setting up the CDK CLI from package-lock.json"
	@$(BIN)/modelstacks setup
	@touch $@

$(VENV)/.torch: $(VENV)/.toolkit
	@echo "setting up $(TORCH), for the transformers engine"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	@touch $@

demo: setup  ## deploy both architectures into the embedded cloud and send predictions
	@$(BIN)/modelstacks demo $(if $(ONCE),--once)

test: setup $(VENV)/.torch  ## run the tests
	@$(BIN)/pytest --numprocesses=2 --dist=loadscope $(PYTEST)

check: setup  ## lint, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=.:serving $(BIN)/lint-imports

format: setup  ## format the code
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

lock-requirements: setup  ## compile requirements.txt and serving/requirements/
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --all-extras pyproject.toml --output-file requirements.txt
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh serving/requirements/compile.sh

reference: setup  ## write docs/schema/ and docs/features.md from the declarations
	@$(BIN)/python -m modelstacks.core.reference

snapshots: setup  ## renew the templates' snapshots after an intended change
	@UPDATE_SNAPSHOTS=1 $(BIN)/pytest -q tests/stacks/test_template_checks.py -k agreed

soak: setup  ## run the tests that take minutes
	@$(BIN)/pytest -m soak

clean:  ## stop the embedded cloud and remove everything that was generated
	@test ! -x $(BIN)/modelstacks || $(BIN)/modelstacks down || true
	rm -rf .modelstacks cdk.out .cache node_modules $(VENV)

pr: ## exactly what CI runs
	@.ci/run
