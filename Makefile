# Everything runs from .venv, which `install` makes from the locks; nothing else is written outside .lakehouse.
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.9
export DAGSTER_DISABLE_TELEMETRY ?= yes
export DAGSTER_HOME ?= $(CURDIR)/.lakehouse/dagster

# With a broker of one's own and the embedded engine, nothing needs Java.
JAVA_FOR_RUN := $(if $(KAFKA_BOOTSTRAP_SERVERS),,java)

.DEFAULT_GOAL := help
.PHONY: help install run dev test test-faults check fix lock wheel image deploy undeploy jobs workflow test-cluster

help: ## Show these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/installed ## Make .venv from the locks (done by the other verbs when needed)

.venv/installed: requirements.lock requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; import venv; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer with venv is needed: install it, or name it with make PYTHON=/path/to/python3" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --require-hashes -r requirements.lock -r requirements-dev.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(DAGSTER_HOME):
	@mkdir -p $@

.PHONY: java
java: install
	@$(BIN)/python -m resources.jvm

run: install $(JAVA_FOR_RUN) | $(DAGSTER_HOME) ## Send 30 events through Kafka, Bronze, Silver and Gold, and print Gold
	$(BIN)/dagster job execute -m lakehouse_dagster.definitions -j lakehouse
	@$(BIN)/python -m lakehouse_dagster gold

dev: install $(JAVA_FOR_RUN) | $(DAGSTER_HOME) ## Run Kafka and the Dagster UI until Ctrl-C
	@$(BIN)/python -m lakehouse_dagster dev

# Two processes, each with servers of its own; a file's tests share what they start, and the long files come first.
# The cluster's tests and the kills are test-cluster's and test-faults'.
test: install java ## Run the tests, on a real Kafka and both engines
	$(BIN)/pytest --ignore tests/cluster --ignore tests/faults -n 2 --dist loadfile --no-loadscope-reorder

# Runs killed on three engines, and writers without the lease. The seed, if none is given, is a new one, and printed.
FAULTS_KILLS ?= 210
FAULTS_MINUTES ?= 20
FAULTS_SEED ?=
test-faults: install java ## Kill runs at every moment, for 20 minutes, and write docs/reliability.md (FAULTS_SEED)
	FAULTS_KILLS=$(FAULTS_KILLS) FAULTS_MINUTES=$(FAULTS_MINUTES) FAULTS_SEED=$(FAULTS_SEED) \
		FAULTS_REPORT=docs/reliability.md $(BIN)/pytest -s tests/faults

check: install ## Check style, formatting, types and layers; change nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: install ## Mend what ruff can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

wheel: install ## Build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build -t wheel

lock: ## Resolve the dependencies of pyproject.toml anew into the locks
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
		pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
		--group dev -c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
		--group spark -c requirements.lock -o k8s/image/spark/requirements.lock

# Kubernetes: the cluster is whatever the kubeconfig says.
OVERLAY ?= local
TAG ?= dev
DOCKER_BUILD ?= docker build
LOAD ?= kind load docker-image
PURGE ?= no

image: wheel ## Build the two images and load them into the cluster (TAG, DOCKER_BUILD, LOAD)
	mkdir dist/jars && $(BIN)/python -m resources.spark dist/jars
	$(DOCKER_BUILD) --tag lakehouse-dagster:$(TAG) --file k8s/image/lakehouse/Dockerfile .
	$(DOCKER_BUILD) --tag lakehouse-spark:$(TAG) --file k8s/image/spark/Dockerfile .
	$(LOAD) lakehouse-dagster:$(TAG) lakehouse-spark:$(TAG)

deploy: ## Bring an overlay into the cluster, and wait until it is up (OVERLAY, TAG)
	@k8s/deploy $(OVERLAY) $(TAG)

jobs: ## Version A, beside what is deployed: producer, Bronze, Silver and Gold as four Jobs, one after the other (TAG)
	@kubectl -n lakehouse delete jobs --selector lakehouse/step
	@for step in producer bronze silver gold; do \
		k8s/render k8s/jobs $(TAG) | kubectl apply --filename - --selector "lakehouse/step=$$step" && \
		kubectl -n lakehouse wait --for=condition=complete --timeout=10m "job/$$step-job" || exit 1; done
	@kubectl -n lakehouse get jobs --selector lakehouse/step

workflow: ## Version B, beside what is deployed: the same as a workflow of Argo Workflows (TAG)
	k8s/render k8s/argo $(TAG) | kubectl apply --filename -
	@workflow=$$(kubectl create -f k8s/argo/submit.yaml --output name) && \
		kubectl -n lakehouse wait --for=condition=Completed --timeout=4h "$$workflow" && \
		kubectl -n lakehouse get "$$workflow" && \
		test "$$(kubectl -n lakehouse get "$$workflow" --output 'jsonpath={.status.phase}')" = Succeeded

undeploy: ## Remove it; the tables stay unless PURGE=yes (OVERLAY, PURGE)
	@k8s/undeploy $(OVERLAY) $(PURGE)

test-cluster: image ## Test all of it on the cluster; its namespace lakehouse must not be in use
	LOAD="$(LOAD)" $(BIN)/pytest tests/cluster
