# Needs Python >= 3.11, make and git; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install sweep test test-cluster format tables clean
.DELETE_ON_ERROR:

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python >= 3.11 is needed, but $(PYTHON) is " + sys.version.split()[0] + "; pass PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --compile --constraint constraints.txt --editable .
	$(BIN)/python -m compileall -q sweep vae
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --compile --constraint constraints.txt --editable '.[test]'
	touch $@

# Two and a half minutes of search, on epochs short enough that two cores get through some trials; no final runs.
sweep: install
	$(BIN)/python -m sweep.run --trials 60 --time-budget 150s --max-epochs 9 --epoch-steps 30000 --final-seeds 1 --address local
	$(BIN)/python -m vae.sample --best

test: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup --ignore=tests/cluster

# On hosts made of namespaces: root on Linux, iproute2, openssh-server, rsync; elsewhere skipped with the reason.
test-cluster: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/cluster

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tables: install
	$(BIN)/python -m benchmarks.tables

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
