# make serve   serve the shipped models on 127.0.0.1:8000 (installs the serving set only)
# make test    linters, types and all tests (installs the training and development sets too)
# make bench   side-by-side measurements into benchmarks/results/, and a table
# make soak    10,000 mixed requests to one server, and what they leave behind

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# onnxruntime-gpu where an NVIDIA driver answers, onnxruntime elsewhere; never both.
RUNTIME := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
OTHER := $(if $(filter gpu,$(RUNTIME)),cpu,gpu)

.PHONY: serve test bench soak clean

serve: $(VENV)/.$(RUNTIME)
	exec $(BIN)/python -m service

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

bench: $(VENV)/.dev
	-$(BIN)/python -m benchmarks
	-$(BIN)/python -m benchmarks.instances
	-$(BIN)/python -m benchmarks.training

soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.soak

$(VENV)/.$(RUNTIME): pyproject.toml
	test ! -e $(VENV)/.$(OTHER) || rm -rf $(VENV)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(RUNTIME)]'
	touch $@

$(VENV)/.dev: $(VENV)/.$(RUNTIME)
	$(BIN)/python -m pip install --quiet --editable '.[$(RUNTIME),training,dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
