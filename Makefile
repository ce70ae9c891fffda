# make demo · make test · make check. Set-up happens once, and again when pyproject.toml or constraints.txt change.
PYTHON ?= $(shell command -v python3.11 || echo python3)
PIP_FLAGS ?=
BIN := .venv/bin

.PHONY: demo test test-arm arm-page test-gpu check format wheel-test reference-checkpoint bench bench-main bench-compress bench-ablation bench-arm bench-budget bench-export bench-gpu bench-noise bench-prediction bench-runtime readme clean help

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgelm needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(PIP_FLAGS) --constraint constraints.txt setuptools
	$(BIN)/pip install --quiet $(PIP_FLAGS) --constraint constraints.txt --no-build-isolation --editable '.[all,dev]'
	@touch $@

demo: .venv/.ready ## the whole job on the embedded example: build/assistant.edgelm and build/assistant.html
	$(BIN)/edgelm build examples/assistant/recipe.toml --out build/assistant.edgelm --html build/assistant.html

test: .venv/.ready ## every test; those marked "data" read the folder named by EDGELM_DATA
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile

# The bundles that tests read on a core, where there is no torch to make them: again when what makes them changes.
build/bundles/.ready: .venv/.ready $(wildcard edgelm/*.py edgelm/*/*.py exporters/foreign/*.py tests/bundles.py tests/product.py tests/tiny.py)
	$(BIN)/python tests/bundles.py build/bundles
	@touch $@

test-arm: build/bundles/.ready ## the tests of what runs on a device, on emulated ARM cores, and the cost of a request there
	PYTHON=$(BIN)/python benchmarks/arm/setup build/arm
	EDGELM_ARM=$(CURDIR)/build/arm EDGELM_BUNDLES=$(CURDIR)/build/bundles $(BIN)/python -m pytest -m arm
	PYTHONPATH=benchmarks $(BIN)/python -m arm.suite --json build/test-arm.json
	$(BIN)/python benchmarks/arm/count.py build/bundles/tiny.edgelm --json build/arm.json

arm-page: .venv/.ready ## what make test-arm found, into benchmarks/arm.json and docs/arm.md
	cp build/test-arm.json benchmarks/arm.json
	$(BIN)/python benchmarks/arm_page.py

test-gpu: build/bundles/.ready ## the tests on a CUDA GPU, with onnxruntime-gpu in place of onnxruntime
	EDGELM_BUNDLES=$(CURDIR)/build/bundles $(BIN)/python -m pytest tests/gpu

check: .venv/.ready ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.ready ## let ruff rewrite the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel-test: .venv/.ready ## build the wheel, install it alone in a clean environment, use it away from the checkout
	.ci/wheel-test

reference-checkpoint: .venv/.ready ## make examples/assistant/reference again: TEACHER=folder DATA=folder
	$(BIN)/edgelm compress $(TEACHER) --recipe examples/assistant/reference.toml \
	  --set data.train=$(abspath $(DATA))/train.jsonl --set data.dev=$(abspath $(DATA))/dev.jsonl \
	  --out examples/assistant/reference --json examples/assistant/reference.json

bench: .venv/.ready ## docs/peers.md, edgelm beside other tools, on a quiet machine: DATA=folder MODELS=folder (COMPRESSED=, PART="--part NAME")
	PYTHON=$(BIN)/python benchmarks/arm/setup build/arm
	$(BIN)/python benchmarks/peers.py --data $(DATA) --models $(MODELS) $(if $(COMPRESSED),--compressed $(COMPRESSED)) $(PART)
	$(BIN)/python benchmarks/peers_page.py

bench-main: .venv/.ready ## the README's figures, from a fresh clone of HEAD: DATA=folder MODELS=folder (20 minutes)
	$(BIN)/python benchmarks/main_job.py --data $(DATA) --models $(MODELS)

bench-compress: .venv/.ready ## docs/compression.md from scratch: DATA=folder MODELS=folder (an hour or two; goes on where it was)
	PYTHON=$(BIN)/python benchmarks/arm/setup build/arm
	$(BIN)/python benchmarks/compression.py --data $(DATA) --models $(MODELS) --lab build/arm
	$(BIN)/python benchmarks/pareto.py

bench-ablation: .venv/.ready ## which part of compression buys what: DATA=folder MODELS=folder (half an hour; goes on where it was)
	$(BIN)/python benchmarks/ablation.py --data $(DATA) --models $(MODELS)
	$(BIN)/python benchmarks/pareto.py

bench-arm: .venv/.ready ## instructions of a request on emulated ARM cores, a cost, not a latency: BUNDLE=file
	PYTHON=$(BIN)/python benchmarks/arm/setup build/arm
	$(BIN)/python benchmarks/arm/count.py $(BUNDLE) --lab build/arm --json build/arm.json

bench-budget: .venv/.ready ## predicted beside measured latency of budgets: DATA=folder MODELS=folder (15 minutes)
	$(BIN)/python benchmarks/budget.py --data $(DATA) --models $(MODELS)

bench-export: .venv/.ready ## docs/export.md: DATA=folder MODELS=folder (two to three hours; goes on where it was)
	for task in vectors wnut17 squad masks; do \
	  $(BIN)/python benchmarks/heads.py $$task --data $(DATA) --out build/heads/$$task || exit 1; done
	$(BIN)/python benchmarks/export.py --data $(DATA) --models $(MODELS)
	$(BIN)/python benchmarks/export_page.py

build/noise.edgelm: .venv/.ready
	$(BIN)/edgelm export examples/assistant/reference --device x86_64-avx2 --data examples/assistant/check.jsonl --out $@

bench-noise: build/noise.edgelm ## docs/trust.md, its comparisons: profiles of the same, alone and beside a neighbour (10 minutes)
	$(BIN)/python benchmarks/noise.py
	$(BIN)/python benchmarks/trust_page.py

bench-prediction: .venv/.ready ## docs/trust.md, its predictions: what engines make of the roofline, on a quiet machine (15 minutes)
	$(BIN)/python benchmarks/prediction.py
	$(BIN)/python benchmarks/trust_page.py

bench-runtime: .venv/.ready ## docs/runtime.md, on a quiet machine (half an hour; PART="--part NAME" for one part)
	$(BIN)/python benchmarks/runtime.py $(PART)
	$(BIN)/python benchmarks/runtime_page.py

bench-gpu: .venv/.ready ## docs/gpu.md, on a machine with a CUDA GPU: DATA=folder MODELS=folder (5 minutes)
	$(BIN)/python benchmarks/gpu.py --data $(DATA) --models $(MODELS)
	$(BIN)/python benchmarks/gpu_page.py

readme: .venv/.ready ## write the committed figures into the README
	$(BIN)/python benchmarks/readme.py

clean: ## remove what was built, keep the environment
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
