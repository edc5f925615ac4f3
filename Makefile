# One command each: `make demo` climbs a ladder on this machine, `make test` checks everything.
PYTHON ?= python3
BIN := .venv/bin
SWEEP ?= examples/laptop.yaml
WORKDIR ?= laptop
# Published training runs, which the repository does not hold.
SHARED ?= $(or $(SCALINGSWEEP_SHARED),../shared)
# More of them, which docs/forecasts.md names.
FURTHER ?= $(SHARED)/further
FRESH ?= $(SHARED)/fresh
# Tests at once: more than cores, since half of a test is waiting for a cluster, a storage or a trainer.
JOBS ?= 3

# What the images install, and what the tests run with, in the same versions.
PIN := $(BIN)/uv pip compile -q --universal --python-version 3.11 --no-emit-index-url --no-header pyproject.toml

.PHONY: help setup demo test control-plane quick lint architectures crds chart format lock figures clean

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: .venv/.ready ## make .venv with the pinned dependencies (a second run installs nothing)

.venv/.ready: requirements/dev.txt pyproject.toml requirements/setup.sh
	@bash requirements/setup.sh "$(PYTHON)"

demo: setup ## climb the laptop ladder and write its report
	@$(BIN)/scalingsweep run $(SWEEP) --workdir $(WORKDIR)

test: setup lint control-plane ## every check and every test
	@$(BIN)/pytest -n $(JOBS) --dist loadgroup

control-plane: setup ## build Kubernetes and an S3 server for the tests, once (about 12 minutes; nothing where it is built)
	@PYTHONPATH=tests $(BIN)/python -m control_plane

quick: setup ## the tests that take seconds
	@$(BIN)/pytest -m "not slow and not cluster" -x

e2e: setup ## the laptop ladder in real containers on this machine (root on Linux; minutes)
	@SCALINGSWEEP_E2E=1 $(BIN)/pytest tests/e2e

lint: setup ## style, types, and the arrows between packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

crds: setup ## write crds/ and the tables of docs/resources.md anew from the models
	@$(BIN)/python -m sweep_operator.crd crds
	@$(BIN)/python docs/resources.py
	@$(MAKE) --no-print-directory chart

chart: setup ## write what is generated of the Helm chart: values, schema, roles, CRDs, dashboards, their pages
	@PYTHONPATH=charts $(BIN)/python -m sweep_chart

architectures: setup ## count the parameters of every architecture of transformers anew (minutes)
	@$(BIN)/python -m sweep_trainer.architectures analysis/sweep_analysis/architectures.json

format: setup ## rewrite the sources in the project's style
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

lock: setup ## pin the newest versions that fit pyproject.toml
	@$(PIN) $(addprefix --extra ,operator trainer huggingface tiktoken lm-eval wandb tensorboard report tables demo s3 gs dev) -o requirements/dev.txt
	@$(PIN) --extra operator --extra report -o requirements/operator.txt -c requirements/dev.txt
	@$(PIN) $(addprefix --extra ,trainer huggingface tiktoken s3 gs) -o requirements/trainer.txt -c requirements/dev.txt

figures: setup ## every figure of the docs anew (it takes long; run it on an idle machine)
	@$(BIN)/python benchmarks/published.py $(SHARED)/data --write docs/published.md
	@$(BIN)/python benchmarks/calibration.py --further $(FURTHER) --write
	@$(BIN)/python benchmarks/calibration.py --fresh $(FRESH) --write
	@$(BIN)/python benchmarks/blind.py --further $(FURTHER) --fresh $(FRESH) --write
	@$(BIN)/python benchmarks/few_records.py --further $(FURTHER) --write
	@$(BIN)/python benchmarks/error_rates.py --write
	@$(BIN)/python benchmarks/laptop_seeds.py score
	@$(BIN)/python benchmarks/laptop.py --json benchmarks/results/laptop.json
	-@$(BIN)/python benchmarks/trainer.py --json benchmarks/results/trainer.json # a missed goal is a figure, too
	@$(BIN)/python benchmarks/trainer.py --docs
	@$(BIN)/python benchmarks/engines.py && $(BIN)/python benchmarks/engines.py --docs
	@$(BIN)/python benchmarks/memory.py --json benchmarks/results/memory.json
	@$(BIN)/python benchmarks/tokenizing.py --json benchmarks/results/tokenizing.json
	@$(BIN)/python benchmarks/metrics.py --json benchmarks/results/metrics.json
	@$(BIN)/python benchmarks/chart.py --json benchmarks/results/chart.json
	@SCALINGSWEEP_NPM=1 $(BIN)/python benchmarks/dashboards.py

clean: ## remove what `setup` made
	rm -rf .venv
