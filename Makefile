# `make` lists what can be made. PYTHON=... chooses the interpreter, PORT=... the port of `make serve`.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3 python,$(shell \
	$(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
PORT ?= 8000
BIN := .venv/bin
# Two layers: what building the site needs, and all that the chapters and the tests need besides.
FOR_SITE := .venv/installed-site
FOR_ALL := .venv/installed
FOR_COLAB := _build/colab/installed
FOR_WEIGHTS := _build/weights/installed
FOR_CENSUS := _build/census/installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off
OLDEST := _build/oldest/bin
TORCH ?= $(patsubst torch==%,%,$(filter torch==%,$(shell cat tests/oldest.txt)))
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

.DEFAULT_GOAL := help
.PHONY: help book test test-unit test-colab test-oldest bench sweeps census weights venv notebooks standalone cheatsheet links serve lint format clean

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: $(FOR_SITE)  ## Build the site into _build/html, with warnings as errors
	@$(BIN)/python -m tools.site.build

test: venv  ## Run all tests: the module, the notebooks (pytest --nbval), the site; CHAPTER=06 for the cells of 06a and 06b
	$(if $(CHAPTER),cells=$$($(BIN)/python -m tools.notebooks.run --list --chapter $(CHAPTER)) &&) $(PYTEST) --nbval $(if $(CHAPTER),$$cells)

test-unit: venv  ## Run the tests of the module alone, in under two minutes: no chapter, no site, no other people's models
	$(PYTEST) -m "not slow" $(UNIT)

test-colab: venv $(FOR_COLAB)  ## Run the standalone notebooks as in Colab: its versions, nothing installed, no network
	@$(BIN)/python -m tools.notebooks.colab $(if $(CHAPTER),$(CHAPTER))

# The module's files, and each one's tests.
MODULES := $(wildcard code/upconv/*.py code/upconv/book/*.py)
UNIT := code/upconv $(sort $(wildcard $(patsubst %.py,tests/test_%.py,$(notdir $(MODULES))))) tests/test_book_models.py

# In an environment of its own. torch goes first and alone, so that TORCH=... may need more than the other pins allow (pip
# then names the conflict and goes on). The tests of a module that need packages from outside pyproject.toml are left out.
test-oldest:  ## Test the module with the oldest versions allowed; TORCH=2.13.0 for another torch
	@test -n "$(PYTHON)" || { echo "Python 3.11 was not found; name it: make test-oldest PYTHON=/path/to/python3.11"; exit 1; }
	$(OLDEST)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear _build/oldest
	$(OLDEST)/python -m pip install --disable-pip-version-check --progress-bar off torch==$(TORCH)
	grep -v '^torch==' tests/oldest.txt | $(OLDEST)/python -m pip install --disable-pip-version-check --progress-bar off \
		-r /dev/stdin $(shell grep -hE '^(pytest|pytest-xdist|hypothesis|setuptools)==' requirements*.txt)
	$(OLDEST)/python -m pip install --disable-pip-version-check --no-build-isolation --no-deps --editable .
	$(OLDEST)/python -m pytest --override-ini addopts=--doctest-modules --numprocesses 2 -ra \
		--deselect tests/test_models.py::test_published_models \
		--deselect tests/test_layers.py::test_results_run_in_onnxruntime $(UNIT)

bench: venv  ## Time the forms of layers and models, and training steps; PART="layer" ONLY="64 512" for some, SAVE=1 for the table
	@OMP_NUM_THREADS=1 $(BIN)/python -m tools.bench $(if $(PART),--part $(PART)) $(if $(ONLY),--name $(ONLY)) $(if $(SAVE),--save)

sweeps: venv  ## Make the missing rows of the tables in data/results, in order; ONLY="schedules" for some, JOBS=2
	@$(BIN)/python -m tools.sweeps $(ONLY) --jobs $(or $(JOBS),1)

weights: $(FOR_WEIGHTS)  ## Make data/results/weights.csv and flat_responses.csv: trained layers of other people's packages
	@PYTHONPATH=code OMP_NUM_THREADS=1 $(<D)/bin/python -m tools.weights $(if $(ONLY),--name $(ONLY))

census: $(FOR_CENSUS)  ## Make the missing rows of data/results/census.csv: what published models upsample with; ONLY="monai timm"
	@PYTHONPATH=code OMP_NUM_THREADS=1 $(<D)/bin/python -m tools.census $(ONLY)

venv: $(FOR_ALL)  ## Make the virtual environment .venv and install everything into it

$(FOR_SITE): requirements-site.txt pyproject.toml code/tools/site/katex/package-lock.json
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; name it: make PYTHON=/path/to/python3.11"; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(PIP) -r requirements-site.txt
	$(PIP) --no-build-isolation --no-deps --editable .
	$(BIN)/python -m tools.site.formulas
	@touch $@

$(FOR_ALL): $(FOR_SITE) requirements.txt
	$(PIP) -r requirements.txt
	@touch $@

$(FOR_COLAB): tests/colab-2026-08.txt
$(FOR_WEIGHTS): code/tools/weights/requirements.txt
$(FOR_COLAB) $(FOR_WEIGHTS):
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar off -r $<
	@touch $@

# torch with what it needs; the other packages without, which would bring torchvision.
$(FOR_CENSUS): code/tools/census/requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; name it: make census PYTHON=..."; exit 1; }
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar off $$(grep '^torch==' $<)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar off --no-deps -r $<
	@touch $@

notebooks: venv  ## Run the chapters again and store their outputs; CHAPTER=01 for one
	$(BIN)/python -m tools.notebooks.run $(if $(CHAPTER),--chapter $(CHAPTER))

standalone: $(FOR_SITE)  ## Write each chapter as one notebook that runs anywhere, into _build/standalone
	@$(BIN)/python -m tools.notebooks.standalone

cheatsheet: venv book  ## Print the cheat sheet into _build/cheatsheet.pdf (needs chromium)
	@$(BIN)/python -m tools.site.cheatsheet

links: $(FOR_SITE)  ## Look whether the addresses that the pages name are still there (needs the network)
	@$(BIN)/python -m tools.site.check_links

serve: book  ## Build the site and serve it at http://127.0.0.1:8000 (PORT=... for another port)
	@echo "http://127.0.0.1:$(PORT)/  (stop with Ctrl-C)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

lint: venv  ## Check the code's style, in the notebooks too, its form (ruff), and GitHub's workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet --persona auditor .github/workflows

format: venv  ## Give the code its form, and the notebooks their order of bytes; nothing is run
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m tools.notebooks.run --format-only

clean:  ## Remove what was built; the virtual environment stays
	rm -rf _build .pytest_cache .ruff_cache .mypy_cache .hypothesis
