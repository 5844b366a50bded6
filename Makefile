# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION := import sys; print("%d.%d" % sys.version_info[:2])
# Another Python makes the environment anew.
INSTALLED := $(VENV)/.installed-$(shell $(PYTHON) -c '$(VERSION)')

.PHONY: demo test check wheel clean

# The main job on embedded data: synthesize words, train, export int8, stream a noisy scene, report.
demo: $(INSTALLED)
	$(BIN)/earmark demo -o demo

# One process for each core, up to four, of one thread each.
test: $(INSTALLED) check
	@$(BIN)/python .ci/system_packages.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

wheel: $(INSTALLED)
	$(BIN)/python -m build --outdir dist

$(INSTALLED): pyproject.toml constraints.txt $(wildcard runtime/backends/native/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@clear=; \
	if [ -f $(VENV)/pyvenv.cfg ] && \
	  [ "$$($(BIN)/python -c '$(VERSION)' 2>/dev/null)" != "$$($(PYTHON) -c '$(VERSION)')" ]; \
	then clear=--clear; fi; \
	$(PYTHON) -m venv $$clear $(VENV) || \
	  { echo "no venv module: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# setuptools warns of each table that it calls experimental, several times.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo dist build *.egg-info
