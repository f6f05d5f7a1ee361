PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Tests wait more than they compute, so there are more processes than cores.
TEST_PROCESSES ?= 4

.PHONY: help setup demo test test-slow test-mariadb check audit requirements crash faults fresh soak bench screenshots
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## install Lately and its tools into .venv

demo: setup ## run everything on this machine, with a shop that places orders (DATABASE=mariadb or mysql); Ctrl-C stops it
	@DATABASE=$(DATABASE) $(RUN) -m local.demo

test: setup check ## run the checks and all tests of CI against real servers
	@sh local/browser.sh
	@$(RUN) -m pytest -n $(TEST_PROCESSES)

test-slow: setup ## run tests that wait for timeouts, and tests with more repetitions (tests/README.md)
	@TEST_DEPTH=full $(RUN) -m pytest -n $(TEST_PROCESSES) -o timeout=1800 -m "slow or hypothesis"

test-mariadb: setup ## run the tests that depend on the database server on an older MariaDB (VERSION=10.11.5)
	@MARIADB_VERSION=$(or $(VERSION),10.11.5) $(RUN) -m pytest -n $(TEST_PROCESSES) \
		-m "both_databases and not slow and not faults"

crash: setup ## kill, freeze and rebalance workers, and compare all tables after each (some 20 minutes)
	@CRASH_ORDERS=400000 CRASH_USERS=50000 $(RUN) -m pytest -o timeout=1800 tests/crash/matrix.py

faults: setup ## break servers, disks, networks and clocks under running workers, and compare all answers after each
	@$(RUN) -m pytest -o timeout=1800 -m "faults or not faults" tests/faults

fresh: ## run `make demo` and `make test` (or FRESH="…") in a fresh Debian 13 as an ordinary user; needs root and debootstrap
	@sh local/fresh.sh "$(FRESH)"

soak: setup ## inject random faults for SOAK_MINUTES=30, compare all answers, and write bench/soak.md
	@$(RUN) -m tests.faults.soak

bench: setup ## measure Lately beside its peers and write bench/results.md (some 30 minutes)
	@$(RUN) -m bench $(BENCH)

screenshots: setup ## take the screenshots of the README from the running demo (URL=http://127.0.0.1:6066)
	@$(RUN) -m local.screenshots $(URL)

check: setup ## check code, format and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

audit: setup ## check the dependencies for known vulnerabilities (asks PyPI)
	@$(RUN) -m pip freeze --exclude-editable >$(VENV)/frozen.txt
	@for versions in deploy/requirements.txt $(VENV)/frozen.txt; do \
		$(RUN) -m pip_audit --strict --disable-pip --no-deps --requirement $$versions || \
			{ echo "$$versions is not clean, or PyPI could not be asked for all of it: the lines above say which"; exit 1; }; \
	done

requirements: ## write deploy/requirements.txt anew from setup.cfg, with the hashes of all files (asks PyPI)
	@test -x $(VENV)/tools/bin/uv || { $(PYTHON) -m venv $(VENV)/tools && $(VENV)/tools/bin/pip install --quiet uv; }
	@grep '^#' deploy/requirements.txt >$(VENV)/requirements.txt
	@$(VENV)/tools/bin/uv pip compile --quiet setup.cfg --python-version 3.12 --generate-hashes --no-annotate --no-header \
		--output-file deploy/requirements.txt >/dev/null
	@cat deploy/requirements.txt >>$(VENV)/requirements.txt && cp $(VENV)/requirements.txt deploy/requirements.txt

$(VENV)/.installed: setup.cfg pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.10 or newer is missing: install python3"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$(PYTHON) is too old: Lately needs Python 3.10 or newer, or set PYTHON=python3.x"; exit 2; }
	@echo "installing Python packages into $(VENV), once ..."
	@$(PYTHON) -m venv $(VENV) || { echo "python3 cannot make a venv: install python3-venv"; exit 2; }
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
