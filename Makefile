# make install, test, faults, test-slurm, test-cuda-compile, lint, quickstart or clean. All that they make lies in .venv, models and runs.
#
#   PYTHON=python3.12       the interpreter that .venv is made from
#   TORCH=torch==2.12.0     another torch than the tested one (2.11 or newer)
#   TORCH_INDEX_URL=URL     one more index, with the build of torch (CUDA version, CPU) that you need
#   ARGS="-k packing"       more options for pytest
#   WORKERS=0               tests one after another in one process, as a debugger wants it

PYTHON ?= python3
TESTED_TORCH := $(shell grep '^torch==' constraints.txt)
TORCH ?= $(TESTED_TORCH)
TORCH_INDEX_URL ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt
EXTRAS := test,dev
# Its name holds what TORCH was, so that another TORCH installs again.
STAMP := $(VENV)/.installed-with-$(subst /,-,$(subst $() ,-,$(TORCH)))
SOURCES := pyproject.toml constraints.txt $(wildcard setup.py) $(shell find csrc -type f 2>/dev/null)
MINILM := $(BIN)/python examples/fetch_minilm.py

# $(call step,what,command): says what runs, and then how long it took.
step = @echo "==> $(1)"; start=$$(date +%s); $(2) || exit; echo "    $$(($$(date +%s) - start)) s"

# A file of tests stays with one worker: its tests share what they launched.
WORKERS ?= 2
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: install test faults test-slurm test-cuda-compile lint quickstart clean
.DELETE_ON_ERROR:

install: $(STAMP)

# The last file that `venv` writes: a venv that was interrupted is made again.
$(BIN)/activate:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "bigft needs Python 3.11 or newer, and $(PYTHON) is not; name one: make PYTHON=python3.12" >&2; exit 1; }
	@missing=; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	$(PYTHON) -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' 2>/dev/null \
	  || missing="$$missing python3-dev"; \
	command -v c++ >/dev/null || missing="$$missing g++"; \
	[ -z "$$missing" ] || { \
	  echo "missing:$$missing (their names on Debian and Ubuntu: apt install$$missing)" >&2; exit 1; }
	$(call step,$(VENV) from $$($(PYTHON) -V),$(PYTHON) -m venv $(VENV))

# True where the venv has a torch that is new enough, unless TORCH asks for another than the tested one.
TORCH_STAYS := $(if $(filter $(TESTED_TORCH),$(TORCH)),$(BIN)/python -c 'from importlib.metadata import version; \
  raise SystemExit([*map(int, version("torch").split(".")[:2])] < [2, 11])' 2>/dev/null,false)
INSTALL_TORCH := $(PIP) $(if $(TORCH_INDEX_URL),--extra-index-url '$(TORCH_INDEX_URL)') '$(TORCH)'

# - torch first and pinned: any other package would draw the newest, several GB of it. It is not among the
#   constraints, so that one that stays is not replaced.
# - What comes as source is built in isolation: DeepSpeed's setup asks for a CUDA toolkit where it sees torch and a GPU,
#   and seqeval's wants build tools of its own.
# - bigft is built outside of isolation, against the torch and pybind11 that it will run with.
$(STAMP): $(BIN)/activate $(SOURCES)
	@grep -v '^torch==' constraints.txt >$(VENV)/constraints.txt
	$(call step,build tools,$(PIP) setuptools pybind11 ninja)
	$(call step,$(TORCH) (the largest download; one that is there stays),$(TORCH_STAYS) || $(INSTALL_TORCH))
	$(call step,packages that come as source,$(PIP) --use-pep517 deepspeed seqeval)
	$(call step,bigft and what it needs,$(PIP) --no-build-isolation -e '.[$(EXTRAS)]')
	@rm -f $(VENV)/.installed-with-*
	@touch $@

lint: $(STAMP)
	$(call step,ruff check,$(BIN)/ruff check --quiet .)
	$(call step,ruff format,$(BIN)/ruff format --quiet --check .)
	$(call step,mypy,$(BIN)/mypy --no-error-summary)

test: $(STAMP)
	@$(MINILM) || echo "without it the tests that need it skip, and say so" >&2
	$(call step,pytest,$(BIN)/python -m pytest $(PARALLEL) $(ARGS))

# The long form of tests/faults: 80 kills and all failpoints, most of an hour.
faults: $(STAMP)
	$(call step,faults,$(BIN)/python -m pytest -m faults tests/faults $(ARGS))

# A real Slurm on this machine; the first call installs Debian's packages, which takes root.
test-slurm: $(STAMP)
	@tests/slurm/cluster.sh install || echo "without it the tests on Slurm skip, and say so" >&2
	$(call step,tests on Slurm,$(BIN)/python -m pytest -m slurm tests/slurm $(ARGS))

# Needs nvcc 13 and no GPU.
test-cuda-compile: $(STAMP)
	$(call step,nvcc for every target,$(BIN)/python tests/cuda/compile.py)

# Called again, it goes on with a run that was interrupted and leaves a finished one as it is.
QUICKSTART := configs/quickstart.yaml train.resume_from_checkpoint=true

quickstart: $(STAMP)
	$(call step,pretrained MiniLM,$(MINILM))
	$(call step,bigft check,$(BIN)/bigft check $(QUICKSTART))
	$(call step,bigft train,$(BIN)/bigft train $(QUICKSTART))
	$(call step,bigft evaluate,$(BIN)/bigft evaluate runs/quickstart --split test)
	$(call step,bigft predict,$(BIN)/bigft predict runs/quickstart --text "Ada Lovelace met Charles Babbage in London.")
	@echo "The model is in runs/quickstart/model (plain transformers loads it), the scores in"
	@echo "runs/quickstart/all_results.json"
	@echo "Next: $(BIN)/bigft init YOUR-FILE -o my.yaml writes a config for your data."

# models and runs stay: they are yours.
clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find bigft -name '*.so' -delete
