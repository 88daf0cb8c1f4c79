# Needs Python 3.11+ and make. uv is fetched into .tools/ when it is not on the PATH.
PYTHON ?= python3
UV ?= $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
# The interpreter itself, not a shim that starts it: for a shim, uv makes the environment again each time.
export UV_PYTHON ?= $(shell $(PYTHON) -c "import sys; print(getattr(sys, '_base_executable', sys.executable))")
export UV_PYTHON_DOWNLOADS ?= never
# Compiled once at install: the first command after it is as fast as the tenth.
export UV_COMPILE_BYTECODE ?= 1
unexport PYTHONDONTWRITEBYTECODE
RUN = $(UV) run --frozen --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test check soak faults bench screenshots dist fmt clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(UV) ## Run the main job on real flights: shadow, canary, rollback under load (KEEP=1: it stays)
	$(UV) run --frozen --quiet --no-dev --extra demo kedge demo $(if $(KEEP),--keep)

test: $(UV) ## Everything CI runs: every test, with real processes, and the checks beside them
	@$(UV) sync --frozen --quiet
	@# The tests wait for processes a third of the time; the checks take that time, at a low priority.
	@nice -n 10 $(MAKE) --no-print-directory check > .check.log 2>&1 & checks=$$!; \
	$(RUN) pytest -q -n 5 --dist loadfile --no-loadscope-reorder -m "not soak"; tests=$$?; \
	wait $$checks || { cat .check.log; exit 1; }; \
	exit $$tests

check: $(UV) ## Format, lint, imports, types
	$(RUN) ruff format --check --quiet .
	$(RUN) ruff check --quiet .
	$(RUN) lint-imports --no-cache > .lint-imports.log || (cat .lint-imports.log; exit 1)
	$(RUN) mypy
	MYPYPATH=src:bench $(RUN) mypy bench
	MYPYPATH=src $(RUN) mypy examples/flights

soak: $(UV) ## The long ones: the full fault matrix, repeated
	$(RUN) pytest -q -m "soak or e2e" --timeout 1800

faults: $(UV) ## Make each system call fail once, at each place that makes it; writes build/faults/findings.txt
	KEDGE_ALL_FAULTS=build/faults $(RUN) pytest -q tests/e2e/test_system_calls.py

bench: $(UV) ## Measure; writes bench/results/*.json
	$(UV) run --frozen --quiet --group bench python bench/run.py

screenshots: $(UV) ## Take the pictures of the docs from a run of the demo; needs Chromium
	$(UV) run --frozen --quiet --extra demo python bench/screenshots.py

dist: $(UV) ## Build the sdist and the wheel into dist/, the same bytes each time
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 1577836800) $(UV) build --quiet --out-dir dist

fmt: $(UV) ## Format, and fix what the linter can fix
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

clean: ## Remove what the other targets made
	rm -rf .venv .tools .kedge .pytest_cache .mypy_cache .ruff_cache .hypothesis .lint-imports.log .check.log bench/results dist

.tools/bin/uv:
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check uv
