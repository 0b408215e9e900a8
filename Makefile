# What a developer does here, in one command each. `make` alone lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# The newest Python that will do; `make up PYTHON=/path/to/python3` takes another one.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
VENV_BIN := .venv/bin

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

.DEFAULT:
	@echo "There is no target '$@'. make help lists the targets." >&2; exit 2

.PHONY: up
up: .venv/.runtime ## start broker, Lambda Server and two example functions (PORT=8080 BROKER=auto|none|rabbitmq)
	@scripts/local up

.PHONY: status
status: ## tell what of it runs
	@scripts/local status || true  # its exit code is for scripts; make would print it as an error

.PHONY: down
down: ## stop all of it
	@scripts/local down

# What ARGS names is run, else the folders of the target. COVERAGE=FOLDER measures the run as well.
measured = $(VENV_BIN)/python -m devtools.mutants.measure $(COVERAGE)
unmeasured = $(VENV_BIN)/pytest --quiet --numprocesses 2 --dist worksteal
pytest = $(if $(COVERAGE),$(measured),$(unmeasured)) $(ARGS) $(if $(findstring tests/,$(ARGS)),,$(1))

.PHONY: test
test: .venv/.dev ## run the tests of each change: unit and integration (ARGS='-k name' for some of them)
	@scripts/test-setup
	@$(call pytest,tests/unit tests/integration)

.PHONY: test-acceptance
test-acceptance: .venv/.dev ## run the tests with compilers, runtimes and manifests
	@scripts/test-setup
	@$(call pytest,tests/acceptance)

.PHONY: test-polling
test-polling: .venv/.dev ## run the tests of calls over RabbitMQ and of conformance with the server's polling worker
	@scripts/test-setup
	@LAMBDA_WORKER=polling $(call pytest,tests/acceptance/system tests/acceptance/conformance)

.PHONY: test-all
test-all: test test-acceptance test-polling test-binary container-check node-check ## run every test of CI; needs root

.PHONY: test-long
test-long: ## run what CI has no time for, with KEDA and ten minutes of attacks; needs root
	@$(MAKE) soak
	@$(MAKE) node-check KEDA=1

.PHONY: fuzz
fuzz: .venv/.dev ## give the codecs random input for hours (ARGS='-k http1' for one of them)
	@FUZZ=long $(VENV_BIN)/pytest --quiet --timeout 0 --numprocesses 2 tests/unit/fuzz $(ARGS)

.PHONY: coverage
coverage: .venv/.dev ## print how much of the product unit, integration and conformance tests run, and compare with the record of make mutants
	@scripts/test-setup
	@$(VENV_BIN)/python -m devtools.mutants --coverage $(if $(MEASURED),--measured $(MEASURED))

.PHONY: mutants
mutants: .venv/.dev ## see that tests notice 150 faults, and write devtools/mutants/record.txt (CHECK=1: compare with it, ONLY=MODULE: of that alone)
	@scripts/test-setup
	@$(VENV_BIN)/python -m devtools.mutants $(if $(CHECK),--check $(addprefix --only ,$(ONLY)))

.PHONY: soak
soak: .venv/.dev ## attack everything at once for MINUTES=10, judge what is left, and write docs/reference/soak.md
	@scripts/test-setup
	@$(VENV_BIN)/python -m tests.acceptance.soak $(or $(MINUTES),10)

.PHONY: check
check: ## all that CI checks: format, lint, types, tests
	@scripts/check

.PHONY: runtimes
runtimes: .venv/.dev ## run one function under each of AWS's runtime clients, and write the matrix into docs/reference/conformance.md
	@scripts/test-setup
	@$(VENV_BIN)/python -m tests.acceptance.runtimes

.PHONY: conformance
conformance: .venv/.dev ## compare with the AWS contract, and write docs/reference/conformance.md
	@scripts/test-setup
	@scripts/build-runtimes
	@$(VENV_BIN)/python -m tests.acceptance.conformance

.PHONY: rapid
rapid: ## make dist/lambda-runtime-api-daemon, rapid as one static file (PGO=0: quicker to make; UPDATE=1: newest sources)
	@PYTHON="$(PYTHON)" scripts/build-rapid $(if $(filter 0,$(PGO)),--no-pgo) $(if $(filter 1,$(UPDATE)),--update)

.PHONY: docker
docker: ## build the images of a cluster, and dist/lambda-runtime-api-daemon (no tools needed but docker)
	@scripts/build-images

.PHONY: k8s
k8s: .venv/.dev ## write k8s/lambdas-*.yaml from k8s/overlays
	@scripts/render-manifests

.PHONY: k8s-lint
k8s-lint: .venv/.dev ## check the manifests with yamllint and checkov
	@scripts/k8s-lint

.PHONY: sbom
sbom: ## write down, as SPDX, what dist/lambda-runtime-api-daemon is made of
	@$(PYTHON) -m devtools.static.sbom

.PHONY: test-binary
test-binary: .venv/.dev ## run rapid's tests against that file (ARGS='tests/acceptance/static' for some of them)
	@scripts/test-setup
	@$(VENV_BIN)/python -m devtools.static.tests $(if $(filter 0,$(PGO)),--no-pgo) $(if $(ARGS),-- $(ARGS))

.PHONY: container-check
container-check: .venv/.dev ## build the images and run them as containers, without docker; needs root
	@scripts/test-setup
	@$(VENV_BIN)/pytest --quiet --capture=no --timeout=900 tests/acceptance/containers $(ARGS)

.PHONY: node-check
node-check: .venv/.dev ## run everything on a real Kubernetes node, without docker or kind; needs root (KEDA=1 builds KEDA)
	@scripts/test-setup
	@$(if $(KEDA),KEDA=1) $(VENV_BIN)/python -m tests.acceptance.node $(ARGS)

.PHONY: bench
bench: .venv/.dev ## measure latency and throughput (SCALE=1: 1,000 callers of a function that takes a second)
	@scripts/test-setup
	@$(VENV_BIN)/python -m bench $(if $(SCALE),scale)

.PHONY: instructions
instructions: .venv/.dev ## count the instructions of a call, and write bench/instructions.txt (CHECK=1: compare with it)
	@scripts/test-setup
	@$(VENV_BIN)/python -m bench instructions $(if $(CHECK),--check)

.PHONY: clean
clean: ## stop what runs, and remove everything that was made here
	@if [ -e .local/state.json ]; then scripts/local down; fi
	rm -rf .venv .local build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment: what the programs need, and with .dev what the tests and tools need too.
.venv/.runtime .venv/.dev: setup.cfg setup.py
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 or newer found (looked for python3.14 to python3.11 and python3)." \
			"Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi
	@$(PYTHON) -m devtools.venv $(@:.venv/.%=%)
