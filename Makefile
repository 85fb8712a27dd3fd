# The same verbs for people and CI. Everything that they need is set up on the way; only Python 3.11, Go, git and make
# are taken for granted.
#
#   make serve        run the server on a filesystem store under ./data (or DATA=...)
#   make test         all tests (or PYTEST="-k blobs")
#   make check        lint, types, layers, proto-check, breaking and test: what CI runs
#   make lint         formatting and ruff's rules
#   make types        mypy, strict
#   make layers       which module may import which
#   make bench        the benchmark table
#   make proto        lint the protos and generate the Python stubs
#   make proto-check  lint the protos, and see that the generated stubs are up to date
#   make breaking     see that the protos break no client of the last release
#   make grpcurl      build grpcurl, for calls by hand
#   make setup        set up .venv and grpcurl, which the others do as they need it
#   make clean        remove what setup and tools have made, but not ./data

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO_VENV := .venv-proto
PROTO_BIN := $(PROTO_VENV)/bin
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/holdfast
GRPCURL_VERSION := v1.9.4
GRPCURL := $(CACHE)/grpcurl-$(GRPCURL_VERSION)/grpcurl
DATA ?= data
# Options for pytest, e.g. `make test PYTEST="-k blobs"`.
PYTEST ?= -n 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help serve grpcurl test check lint types layers proto proto-check breaking bench setup clean

help:
	@sed -n 's/^#   //p' Makefile

grpcurl: $(BIN)/grpcurl

setup: $(VENV)/.done $(BIN)/grpcurl

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt hatchling editables
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

$(PROTO_VENV)/.done: proto/requirements.txt
	$(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_BIN)/pip install --quiet --requirement proto/requirements.txt
	touch $@

$(GRPCURL):
	mkdir -p $(@D)
	GOBIN=$(@D) go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION)

$(BIN)/grpcurl: $(VENV)/.done $(GRPCURL)
	ln -sf $(GRPCURL) $@

serve: $(VENV)/.done
	$(BIN)/holdfast-server serve --data-dir $(DATA)

test: setup
	$(BIN)/python -m pytest $(PYTEST)

check: lint types layers proto-check breaking test

lint: $(VENV)/.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.done
	$(BIN)/mypy

layers: $(VENV)/.done
	$(BIN)/lint-imports --no-logo

proto: $(PROTO_VENV)/.done
	$(PROTO_BIN)/buf lint
	proto/generate $(PROTO_BIN) clients/python

proto-check: $(PROTO_VENV)/.done
	$(PROTO_BIN)/buf lint
	proto/check-generated $(PROTO_BIN)

breaking: $(PROTO_VENV)/.done
	proto/check-breaking $(PROTO_BIN)

bench: $(VENV)/.done
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(PROTO_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
