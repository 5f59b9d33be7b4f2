# Two commands do the main job: `make figures` and `make test`. Each sets up .venv first, once.
#   TORCH=auto|cpu|cuda     which build of PyTorch (auto: CUDA where an NVIDIA card works, else CPU)
#   TORCH_INDEX_URL=...     where pip shall look for it
#   PYTHON=...              the Python (3.11 or newer) that makes .venv
#   JOBS=...                how many cells of a comparison run at once (default: one a core, 8 at most; 1.5 GB each)
#   TESTS=...               how many files of tests run at once (default: one more, 8 at most; 1.5 GB each)
#   SIZE=pocket|full        what `make bench` times
#   LAB=...                 what to tell JupyterLab, for example LAB='--no-browser --port=9000', or as root LAB=--allow-root

PYTHON_CHOSEN := $(PYTHON)
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
TORCH ?= auto
TORCH_INDEX_URL ?=
LAB ?=
SIZE ?= pocket
# PyTorch's threads shall wait without spinning: see creativelib/__init__.py
OMP_WAIT_POLICY ?= passive
# Python shall keep what it compiles, also where a container switched that off: each start would take ten seconds more.
PYTHONDONTWRITEBYTECODE :=
export PYTHON_CHOSEN TORCH TORCH_INDEX_URL OMP_WAIT_POLICY PYTHONDONTWRITEBYTECODE

RUN := .venv/bin/python
# Unit tests and notebooks in one pool: a file or a notebook at a time on each core, the long ones first (tests/conftest.py),
# with one thread each, and the notebooks with their short settings (creativelib/quick.py).
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 8 ] && echo 8 || echo $$n)
# One process more than cores, which computes while another one waits for a browser, a server or a kernel.
TESTS ?= $(shell [ $(JOBS) -lt 8 ] && echo $$(($(JOBS) + 1)) || echo $(JOBS))
POOL := -n $(TESTS) --dist loadfile --no-loadscope-reorder --durations 10
NBVAL := --nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-kernel-startup-timeout 300 \
	-p no:cacheprovider

.DEFAULT_GOAL := help
.PHONY: help setup figures notebooks test lab lint bench test-gpu comparison comparison-small gallery pocket-corpus pocket pocket-evaluate lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with everything in it; all others do this first
	@test -n "$(PYTHON)" || { echo "setup: no Python 3.11 or newer found; install one, or: make PYTHON=/path/to/python3" >&2; exit 1; }
	@python="$(PYTHON)"; case $$python in "~/"*) python="$$HOME/$${python#??}" ;; esac; "$$python" tools/setup

figures: setup ## run every notebook; pages and figures go to build/
	@$(RUN) tools/run_notebooks.py

notebooks: setup ## run every notebook and keep the outputs in it, as they are committed
	@$(RUN) tools/run_notebooks.py --keep

test: setup ## run the unit tests and check the notebooks
	CREATIVELIB_QUICK=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest $(POOL) $(NBVAL) tests notebooks

lab: setup ## open the notebooks in JupyterLab
	@if [ "$$(id -u)" = 0 ] && [ -z "$(LAB)" ]; then echo "make lab: as root (in a container): make lab LAB=--allow-root"; fi
	$(RUN) -m jupyterlab $(LAB) notebooks/00_start_here.ipynb

lint: setup ## check style and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: setup ## time the method on this machine (SIZE=full: the published sizes, with random weights)
	$(RUN) -m bench --size $(SIZE)

test-gpu: setup ## run the tests that need an NVIDIA card
	$(RUN) -m pytest -m gpu tests

comparison: setup ## compare all methods under the same compute and answer data/comparison/hypotheses.toml: an hour on two cores
	$(RUN) -m creativelib compare --stated --jobs $(JOBS) --out build/comparison

comparison-small: setup ## the same with two subjects, two seeds and few plain pictures: four minutes
	$(RUN) -m creativelib compare --stated --small --jobs $(JOBS) --out build/comparison-small

gallery: setup ## run the main job for eleven subjects; pictures and their facts go to gallery/
	$(RUN) tools/make_gallery.py

pocket-corpus: setup ## fetch and render the icons that the shipped model learned from (needs npm)
	$(RUN) -m creativelib.pocket.corpus

pocket: setup ## train the shipped model again (hours without a GPU)
	$(RUN) -m creativelib.pocket.train

pocket-evaluate: setup ## measure the shipped model and write its card
	$(RUN) -m creativelib.pocket.evaluate

lock: ## write the versions in .venv to requirements.lock (without set-up, which would put the old ones back)
	$(RUN) tools/lock.py

clean: ## delete .venv and build/pages, build/figures; a trained model in build/pocket stays
	rm -rf .venv build/pages build/figures build/index.html .pytest_cache .ruff_cache creativelib.egg-info
