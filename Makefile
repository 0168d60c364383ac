# `make demo` and `make test` are all a fresh machine needs (Python >= 3.11, git, make, gcc).
# The newest Python that really runs is taken: several can be installed side by side.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
# modules compiled once start five times faster than modules compiled in every process
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(shell grep -oE '^uv==[0-9.]+' requirements.lock)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all compat lint format lock bench gpu gpu-wheels lock-build release images clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

install: $(STAMP) ## make .venv with the package and every tool, as the lock says
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 found: install one, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(UV)
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $(STAMP)

demo: $(STAMP) ## the whole job on a made-up archive, ends in demo-out/report.html
	$(BIN)/odc-stats-gpu demo

test: $(STAMP) ## the test-suite (minutes)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not compat"

test-all: $(STAMP) ## the slow tests too
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not compat"

compat: $(STAMP) bench/.installed ## compare files with the incumbent's own reader
	ODC_STATS_PEER_PYTHON=$(CURDIR)/.bench-venv/bin/python $(BIN)/python -m pytest -q -m compat

lint: $(STAMP) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --extra dev --extra cuda13 pyproject.toml -o requirements.lock

lock-build: $(STAMP) ## resolve docker/build.in, what builds wheels, anew into docker/build.lock
	$(BIN)/uv pip compile -q --upgrade --generate-hashes --python-version 3.11 docker/build.in -o docker/build.lock

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
release: $(STAMP) ## wheel and source archive with SHA256SUMS into dist/; a commit's wheel is always the same
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 315532800) $(BIN)/uv build -q --build-constraints docker/build.lock --require-hashes -o dist
	cd dist && sha256sum *.whl *.tar.gz > SHA256SUMS && cat SHA256SUMS

images: ## both images of docker/Dockerfile with their digests in dist/IMAGES, where there is an engine
	@docker info >/dev/null 2>&1 || { echo "no container engine answers: start one, or let a tag build the images" >&2; exit 1; }
	@mkdir -p dist && rm -f dist/IMAGES
	for t in cpu gpu; do \
	  docker build -f docker/Dockerfile --target $$t -t odc-stats-gpu:$$t -t odc-stats-gpu:$(VERSION)-$$t --iidfile dist/$$t.id . \
	  && echo "$$(cat dist/$$t.id)  odc-stats-gpu:$(VERSION)-$$t" >> dist/IMAGES && rm dist/$$t.id || exit 1; \
	done

bench: $(STAMP) bench/.installed ## ours against the incumbent, kernels and one whole tile; prints the README's table
	$(BIN)/python bench/kernels.py --peer-python .bench-venv/bin/python
	$(BIN)/python bench/end_to_end.py --peer-python .bench-venv/bin/python

bench/.installed: bench/requirements.txt
	@bench/make-venv .bench-venv
	@touch $@

# Without PYTHON=... or WHEELS=... the GPU targets use .venv; with one of them that interpreter as it is,
# nothing is installed and no network is needed.
ifneq ($(filter command,$(origin PYTHON))$(WHEELS),)
GPU_PYTHON = $(PYTHON)
else
GPU_PYTHON = $(BIN)/python
GPU_READY = $(STAMP)
endif
GPU_OPTIONS = $(if $(SIMULATE),--simulate) $(if $(QUICK),--quick) $(if $(KERNELS),--kernels-only) $(if $(WHEELS),--wheels $(WHEELS)) $(if $(OUT),--out $(OUT))

gpu: $(GPU_READY) ## tests and benchmarks on this machine's GPU, one record (PYTHON= WHEELS= OUT= QUICK=1 KERNELS=1 SIMULATE=1)
	PYTHONPATH=$(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH)) $(GPU_PYTHON) -m bench.gpu --tests $(GPU_OPTIONS)

gpu-wheels: $(STAMP) ## collect into gpu-wheels/ what a bare CUDA machine lacks (SMALL=1 KERNELS=1 DASK=1 SKIP="pandas ...")
	$(BIN)/python -m bench.gpu.collect_wheels $(if $(KERNELS),--kernels) $(if $(DASK),--dask) $(if $(SMALL),--small) $(if $(SKIP),--skip $(SKIP)) $(if $(OUT),--out $(OUT))

clean: ## remove everything that make made
	rm -rf $(VENV) .bench-venv bench/.installed demo-out build dist gpu-wheels *.egg-info
