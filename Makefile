# `make` lists what can be made. PYTHON=... chooses the interpreter, PORT=... the port of `make serve`.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3 python,$(shell \
	$(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
PORT ?= 8000
BIN := .venv/bin
INSTALLED := .venv/installed
OLDEST := _build/oldest/bin
TORCH ?= $(patsubst torch==%,%,$(filter torch==%,$(shell cat tests/oldest.txt)))

.DEFAULT_GOAL := help
.PHONY: help book test test-colab test-oldest bench venv notebooks standalone links serve lint clean

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: venv  ## Build the site into _build/html, with warnings as errors
	@$(BIN)/python code/tools/build_site.py

test: venv  ## Run all tests: the module, the notebooks (pytest --nbval), the site
	$(BIN)/python -m pytest --nbval --numprocesses 2 --dist loadfile

test-colab: venv  ## Run the standalone notebooks as in Colab: its versions, nothing installed, no network
	@$(BIN)/python code/tools/colab.py

# In an environment of its own. torch goes first and alone, so that TORCH=... may need more than the other pins allow (pip
# then names the conflict and goes on). The tests of a module that need packages from outside pyproject.toml are left out.
test-oldest:  ## Test the module with the oldest versions allowed; TORCH=2.13.0 for another torch
	@test -n "$(PYTHON)" || { echo "Python 3.11 was not found; name it: make test-oldest PYTHON=/path/to/python3.11"; exit 1; }
	$(OLDEST)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear _build/oldest
	$(OLDEST)/python -m pip install --disable-pip-version-check --progress-bar off torch==$(TORCH)
	grep -v '^torch==' tests/oldest.txt | $(OLDEST)/python -m pip install --disable-pip-version-check --progress-bar off \
		-r /dev/stdin $(shell grep -E '^(pytest|pytest-xdist|hypothesis|setuptools)==' requirements.txt)
	$(OLDEST)/python -m pip install --disable-pip-version-check --no-build-isolation --no-deps --editable .
	$(OLDEST)/python -m pytest --override-ini addopts=--doctest-modules --numprocesses 2 --dist loadfile -ra \
		--deselect tests/test_models.py::test_published_models \
		--deselect tests/test_layers.py::test_results_run_in_onnxruntime \
		code/upconv $(wildcard $(patsubst %.py,tests/test_%.py,$(notdir $(wildcard code/upconv/*.py code/upconv/book/*.py)))) \
		tests/test_book_models.py

bench: venv  ## Time the rewritten forms against the models as they are; ONLY="pair generator" for some
	@$(BIN)/python code/tools/bench.py $(if $(ONLY),--only $(ONLY)) $(if $(CSV),--csv $(CSV))

venv: $(INSTALLED)  ## Make the virtual environment .venv and install everything into it

$(INSTALLED): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; name it: make PYTHON=/path/to/python3.11"; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

notebooks: venv  ## Run the chapters again and store their outputs; CHAPTER=01 for one
	$(BIN)/python code/tools/notebooks.py $(if $(CHAPTER),--chapter $(CHAPTER))

standalone: venv  ## Write each chapter as one notebook that runs anywhere, into _build/standalone
	@$(BIN)/python code/tools/standalone.py

links: venv  ## Look whether the addresses that the pages name are still there (needs the network)
	@$(BIN)/python code/tools/check_links.py

serve: book  ## Build the site and serve it at http://127.0.0.1:8000 (PORT=... for another port)
	@echo "http://127.0.0.1:$(PORT)/  (stop with Ctrl-C)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

lint: venv  ## Check the code's style and form (ruff), in the notebooks too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## Remove what was built; the virtual environment stays
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
