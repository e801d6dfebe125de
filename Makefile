# `make help` lists the targets. Each creates and reuses .venv, and needs Python 3.11+, its venv
# module and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-all zoo soak hostile mutants docs lint proto lock bench clean
FAULTS ?= 200
SEED ?= 1
SOAK_MINUTES ?= 20

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# torch first and alone: its version then satisfies every other package's range, and no newer build
# (several gigabytes of CUDA packages) is drawn in on a machine that has a CPU build of this one.
$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "actvec needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$$(sed -n 's/^ *"\(torch==[^"]*\)",/\1/p' pyproject.toml)"
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

install: $(INSTALLED) ## create .venv with everything in it

demo: $(INSTALLED) ## serve the demo model, turn the sample corpus into vectors and a report
	$(BIN)/python -m examples.demo

# Three processes, one more than the two cores that this is tuned for, since tests wait now and then,
# and a thread of torch in each and in each of their servers: the models are so small that more
# threads only wait for each other. Modules go in their order: left to itself, the one that hands
# them out keeps those of few and long tests for the end, when the other processes have nothing to do.
test: $(INSTALLED) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(INSTALLED) ## run the slow tests: whole programs, Ray clusters, a short soak, long pages, benchmarks
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

test-all: test test-slow ## run all tests

zoo: $(INSTALLED) ## serve a tiny model of every architecture and compare it with transformers
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.zoo

soak: $(INSTALLED) ## kill and cut at random, FAULTS times, then SOAK_MINUTES of callers: no loss, no leak
	$(BIN)/pytest tests/faults -s --faults $(FAULTS) --fault-seed $(SEED) --soak-minutes $(SOAK_MINUTES)

hostile: $(INSTALLED) ## attack a server at length and print what became of it
	$(BIN)/pytest tests/hostile -s --long-form --timeout 0

mutants: $(INSTALLED) ## put 300 small faults into the core, one at a time: how many do the tests find?
	$(BIN)/pip install --quiet mutmut==3.8.1
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants --sample 300 --seed $(SEED)

docs: $(INSTALLED) ## build the documentation into build/docs
	$(BIN)/python -m mkdocs build

lint: $(INSTALLED) ## check style, types, the contract, generated code and configuration files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python proto/generate.py --check
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml deploy/compose.gpu.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

proto: $(INSTALLED) ## regenerate messages, grpc stubs and their types from proto/
	$(BIN)/buf format --write
	$(BIN)/python proto/generate.py

lock: $(INSTALLED) ## pin what the image on Modal installs, to the newest versions that pyproject.toml admits
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra server --extra data --upgrade \
	  --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
	  --no-annotate --no-emit-index-url --custom-compile-command "make lock" \
	  --output-file distributed/actvec/modal/requirements.txt

bench: $(INSTALLED) ## measure this engine against its peers and against the machine's limit
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m bench.cpu $(if $(VLLM),--vllm $(VLLM))
	$(BIN)/python -m bench.one_pass

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
