# LoRA Lab. `make` lists what there is to do. Needs make 3.81 or later and bash.
#
#   make lab PYTHON=python3.12      another Python (3.11 to 3.13)
#   make lab TORCH_INDEX=https://download.pytorch.org/whl/cpu      Linux without a GPU: the small PyTorch
#   make lab LAB_FLAGS=--no-browser      flags for JupyterLab
#   make test TESTS="-m 'not browser'"      flags and files for pytest; make quick takes them too
#   make course COURSE="--only 00 08"      flags for the course: --fast, --only, --output
#   make present PRESENT="--ready --only rank lora"      flags for the live demonstration: --port, --only, --ready, --no-browser
#   make gpu-check GPU_CHECK="--only memory"      flags for the check of a GPU: --only, --budget, --output, --pretend

SHELL := /bin/bash
# Compiled files are kept: some five hundred processes import the library in one `make test`.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
TORCH_INDEX ?=
LAB_FLAGS ?=
TESTS ?=
COURSE ?=
PRESENT ?=
GPU_CHECK ?=
NN ?= 01

BIN := .venv/bin
# Stamps: an install that was cut short leaves none, so the next call continues.
LAB := .venv/.lora-lab
TEACH := .venv/.lora-lab-instructors
DEV := .venv/.lora-lab-dev
# Three files at a time on two cores: one often waits for a kernel, a server or a browser.
THREE := -n 3 --dist loadscope --no-loadscope-reorder
# Runs a command while a lock is held: recordings (data/record_evidence.py) pause until it is given back.
PAUSING := $(BIN)/python -m lab_utils.locks
CPU_INDEX := https://download.pytorch.org/whl/cpu
ROOT_FLAG := $(if $(filter 0,$(shell id -u)),--allow-root)
PIP := PYTHONWARNINGS=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -c constraints.txt \
       $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# Of pip's many lines, the large files are worth seeing; its errors and warnings come through as they are.
LARGE := awk '/^ *(Downloading|Using cached|Processing) .*\.whl/ && /GB|MB|torch-/ \
              { sub(/^ */, ""); sub(/[^ ]*\//, ""); print "  " $$0; fflush() } \
              /^Installing collected/ { print "  Packages to install: " NF - 3; fflush() }'

.DEFAULT_GOAL := help
.PHONY: help lab quick test course lint bench model browser editions present slides evidence gpu-check

help:
	@echo "For students"
	@echo "  make lab         set everything up, then open JupyterLab on notebook 00"
	@echo "  make course      run every notebook; then read site/index.html"
	@echo
	@echo "For instructors"
	@echo "  make editions    the notebooks for students and for instructors, in editions/"
	@echo "  make present     show the explorers to a class, full screen and in large type"
	@echo "  make slides NN=01   show a notebook as slides"
	@echo "  make gpu-check   on a GPU, the evening before: does the course run on this card?"
	@echo
	@echo "For contributors"
	@echo "  make quick       the tests of about a minute: after every change"
	@echo "  make test        all tests, as continuous integration runs them"
	@echo "  make lint        the code's style, and that the notebooks hold no outputs"
	@echo "  make bench       limits in seconds and memory, on an idle machine"
	@echo "  make evidence    what is recorded for the pages' conclusions, and what is missing"
	@echo
	@echo "The first call makes the environment in .venv (a few minutes, 2 to 8 GB) and stores"
	@echo "the model in ~/.cache/lora-lab. Options of each command: the first lines of Makefile."

lab: $(LAB) model
	@echo "Opening JupyterLab on notebooks/00_start_here.ipynb. Stop it with Ctrl-C here."
	@$(BIN)/jupyter lab $(ROOT_FLAG) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_FLAGS)

# Without what tests/conftest.py marks as slow: no process, no server, no model to load. Stops at the first failure.
quick: $(DEV) model
	@export OMP_NUM_THREADS=1 LORA_LAB_THREADS=1; $(PAUSING) $(BIN)/python -m pytest -n auto --dist worksteal -x -q --durations=0 \
	   --durations-min=1 -m "not slow" $(TESTS)

test: $(DEV) model browser
ifdef TESTS
	@$(PAUSING) $(BIN)/python -m pytest $(TESTS)
else
	@echo "Running the tests, three files at a time on one thread each"
	@export OMP_NUM_THREADS=1 LORA_LAB_THREADS=1; $(PAUSING) $(BIN)/python -m pytest $(THREE)
endif

course: $(DEV) model
	@$(BIN)/python -m lab_utils.classroom site $(COURSE)

editions: $(TEACH)
	@$(BIN)/python -m lab_utils.classroom editions student --output editions/student
	@$(BIN)/python -m lab_utils.classroom editions instructor --output editions/instructor

present: $(TEACH) model
	@$(BIN)/python -m lab_utils.classroom present $(PRESENT)

slides: $(TEACH) model
	@$(BIN)/python -m lab_utils.classroom slides $(NN) $(ROOT_FLAG) $(LAB_FLAGS)

gpu-check: $(LAB) model
	@$(BIN)/python -m lab_utils.gpu_check $(GPU_CHECK)

lint: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb
	@echo "The code's style is fine and the notebooks hold no outputs."

evidence: $(LAB)
	@$(BIN)/python data/record_evidence.py --list

bench: $(DEV) model browser
	@PYTHONPATH=tests/support $(BIN)/python tests/bench/bench_explorers.py
	@$(BIN)/python tests/bench/bench_nf4.py
	@$(BIN)/python tests/bench/bench.py
	@$(PAUSING) $(BIN)/python -m pytest -q tests/bench/bench_limits.py

model: $(LAB)
	@$(BIN)/python -m lab_utils.models

browser: $(DEV)
	@$(BIN)/python tests/support/find_browser.py --install

# A link to the Python it was made with: where that was removed, make finds nothing here and starts again.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit( \
	   "LoRA Lab needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is Python %d.%d.\n" % v + \
	   "If you have another, name it: make $(MAKECMDGOALS) PYTHON=python3.12")'
	@echo "Making the environment in .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv > /dev/null 2>&1 || { \
	   echo "This Python has no ensurepip (Debian: python3-venv); taking pip from PyPI"; \
	   $(PYTHON) -m venv --clear --without-pip .venv && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } || { \
	   rm -rf .venv; \
	   echo "No environment could be made. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }

$(LAB): $(BIN)/python pyproject.toml constraints.txt
	@$(BIN)/python -c 'import torch' 2> /dev/null || test -n "$(TORCH_INDEX)" || test "$$(uname -s)" != Linux || \
	   command -v nvidia-smi > /dev/null || { \
	   echo "No NVIDIA GPU is seen here, yet pip's PyTorch for Linux installs some GB for one. To spare yourself that, stop with"; \
	   echo "Ctrl-C and call:  make $(MAKECMDGOALS) TORCH_INDEX=$(CPU_INDEX)"; }
	@echo "Installing the packages of pyproject.toml in the versions of constraints.txt"
	@# A fresh Python 3.11 environment holds a pip and a setuptools of 2023; torch needs a newer setuptools.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip 'setuptools>=77'
	@set -o pipefail; $(PIP) -e '.[pictures,retrieval]' | $(LARGE)
	@# No question about news on the first page. It is a comfort only, so a failure is not an error.
	@$(BIN)/jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements > /dev/null 2>&1 || true
	@# A saved notebook keeps its widgets: opened again, they are drawn before any cell has run.
	@mkdir -p .venv/share/jupyter/lab/settings
	@echo '{"@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": true}}' > .venv/share/jupyter/lab/settings/overrides.json
	@# Every kernel explains a NameError, right after a restart too.
	@$(BIN)/python -m lab_utils.notebook.name_errors
	@touch $@

$(TEACH): $(LAB)
	@echo "Installing the instructors' packages too"
	@set -o pipefail; $(PIP) -e '.[instructors]' | $(LARGE)
	@touch $@

$(DEV): $(LAB)
	@echo "Installing the tests' packages too"
	@set -o pipefail; $(PIP) -e '.[dev]' | $(LARGE)
	@# keras-hub alone: TensorFlow, 2 GB, is for its tokenizers, which no test needs.
	@$(PIP) --quiet --no-deps 'keras-hub>=0.32,<0.33'
	@touch $(TEACH) $@
