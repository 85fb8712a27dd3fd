# The same verbs for people and CI. Everything that they need is set up on the way; only Python 3.11, Go, git and make
# are taken for granted.
#
#   make serve        run the server on a filesystem store under ./data (or DATA=...)
#   make test         all tests (or PYTEST="-k blobs")
#   make check        lint, types, layers, proto-check, breaking and test: what CI runs
#   make s3-server    build MinIO and rclone, which the tests of S3 need: once, some minutes
#   make lint         formatting and ruff's rules
#   make types        mypy, strict
#   make layers       which module may import which
#   make bench        the benchmark tables; builds MinIO first, once
#   make proto        lint the protos and generate the Python stubs
#   make proto-check  lint the protos, and see that the generated stubs are up to date
#   make breaking     see that the protos break no client of the last release
#   make grpcurl      build grpcurl, for calls by hand
#   make setup        set up .venv, .venv-moto and grpcurl, which the others do as they need it
#   make clean        remove what setup and tools have made, but not ./data

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO_VENV := .venv-proto
PROTO_BIN := $(PROTO_VENV)/bin
MOTO_VENV := .venv-moto
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/holdfast
GRPCURL_VERSION := v1.9.4
GRPCURL := $(CACHE)/grpcurl-$(GRPCURL_VERSION)/grpcurl
MINIO_VERSION := v0.0.0-20260212201848-7aac2a2c5b7c
MINIO := $(CACHE)/minio-$(MINIO_VERSION)/minio
# Our own main package chooses what of rclone is built, so its checksum is part of the version.
RCLONE_VERSION := v1.75.1
RCLONE_MAIN := tests/support/rclone/main.go
RCLONE := $(CACHE)/rclone-$(RCLONE_VERSION)-$(firstword $(shell cksum < $(RCLONE_MAIN)))/rclone
DATA ?= data
# Options for pytest, e.g. `make test PYTEST="-k blobs"`. On two cores three processes are a fifth quicker than two: the
# tests wait for servers as much as they work.
PYTEST ?= -n 3

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help serve grpcurl s3-server s3-links test check lint types layers proto proto-check breaking bench setup clean

help:
	@sed -n 's/^#   //p' Makefile

grpcurl: $(BIN)/grpcurl

s3-server: $(MINIO) $(RCLONE) s3-links

setup: $(VENV)/.done $(MOTO_VENV)/.done $(BIN)/grpcurl s3-links

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt hatchling editables
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

$(PROTO_VENV)/.done: proto/requirements.txt
	$(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_BIN)/pip install --quiet --requirement proto/requirements.txt
	touch $@

$(MOTO_VENV)/.done: tests/moto-requirements.txt
	$(PYTHON) -m venv $(MOTO_VENV)
	$(MOTO_VENV)/bin/pip install --quiet --requirement tests/moto-requirements.txt
	touch $@

# `$(call build,COMMANDS)` has them build the target in $$new, beside its place, and moves it there when it is whole: an
# interrupted build leaves nothing that counts as done.
build = @echo "building $(@F)" && mkdir -p $(@D) && new=$$(mktemp -d $(@D)/new.XXXXXX) && \
	trap 'rm -rf "$$new"' EXIT && trap 'exit 1' HUP INT TERM && \
	$(1) && mv "$$new/$(@F)" $@

$(GRPCURL):
	$(call build,GOBIN="$$new" go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION))

$(MINIO):
	$(call build,GOBIN="$$new" go install github.com/minio/minio@$(MINIO_VERSION))

# No go.mod of ours: rclone's own names the versions of all that it needs.
$(RCLONE):
	$(call build,cp $(RCLONE_MAIN) "$$new" && (cd "$$new" && go mod init holdfast/rclone && \
		go mod edit -require=github.com/rclone/rclone@$(RCLONE_VERSION) && go build -mod=mod -buildvcs=false -o rclone))

$(BIN)/grpcurl: $(VENV)/.done $(GRPCURL)
	ln -sf $(GRPCURL) $@

# The links lead to the versions named above, built or not: `make test` goes without those that are not.
s3-links: $(VENV)/.done
	ln -sf $(MINIO) $(RCLONE) $(BIN)/

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

bench: $(MINIO) s3-links
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(PROTO_VENV) $(MOTO_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
