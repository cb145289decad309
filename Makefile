# The front door. On a machine with Python 3.11 or 3.12 and make, `make paper` and `make test` are
# all there is to know: .venv is made on the first run (with uv where there is one, else with pip).

SHELL = /bin/sh
PYTHON = .venv/bin/python
TRIPGATE = .venv/bin/tripgate
READY = .venv/.installed
# Words for the command behind a target, as in: make paper ARGS="--duration 30 --seed 7"
ARGS =

.PHONY: help paper test check chaos spin bench figures lock clean

help:
	@echo "make paper     trade on paper under the gate (ARGS=\"--duration 30\" passes options on)"
	@echo "make test      all tests with branch coverage, under ten minutes on two cores"
	@echo "make check     lint, format, types, layers and house rules, then make test (Spin's models too)"
	@echo "make chaos     200 seeded fault runs of the deterministic simulation"
	@echo "make spin      the models of the gate's protocols, checked by Spin (about a minute)"
	@echo "make bench     the gate's speed, as ratios beside a reference measured in the same run"
	@echo "make figures   the long runs that write docs/figures.md and docs/reliability.md (minutes)"
	@echo "make lock      rewrite the lock files and constraints (needs uv; UPGRADE=1 moves pins)"
	@echo "make clean     remove caches and build results, but not .venv"

$(READY): requirements.lock requirements-build.lock pyproject.toml .ci/venv
	@.ci/venv

paper: $(READY)
	@$(TRIPGATE) paper $(ARGS)

test: $(READY)
	@$(PYTHON) .ci/test.py

check: $(READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) -m pytest -q tests/test_tidy.py
	@command -v spin >/dev/null && { command -v gcc || command -v cc; } >/dev/null || \
	    echo "the models are left out: no Spin or C compiler here (apt-get install spin gcc)"
	@$(MAKE) test

chaos: $(READY)
	@$(TRIPGATE) chaos run --seeds 200 $(ARGS)

spin: $(READY)
	@$(TRIPGATE) chaos spin $(ARGS)

bench: $(READY)
	@$(TRIPGATE) bench gate $(ARGS)

figures: $(READY)
	@$(TRIPGATE) bench figures $(ARGS)
	@$(TRIPGATE) bench reliability $(ARGS)

lock: $(READY)
	@$(PYTHON) .ci/pin.py $(if $(UPGRADE),--upgrade)

clean:
	@find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	@rm -f .coverage .coverage.*
