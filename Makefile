# make demo: install, train three minutes, look at the pictures.  make test: set up and run the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup demo test check benchmarks clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "rlgen needs Python 3.11 to 3.13; say which with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/rlgen train env=pixel agent=dqn

test: setup
	$(BIN)/python -m pytest -n 2

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Long: about eight hours on two cores. Each writes its table and pictures below docs/.
benchmarks: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[benchmarks]'
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.resketch
	$(BIN)/python -m benchmarks.digits
	$(BIN)/python -m benchmarks.sprites
	$(BIN)/python -m benchmarks.learning_to_paint
	$(BIN)/python -m benchmarks.agents
	$(BIN)/python -m benchmarks.spiral
	$(BIN)/python -m benchmarks.vs_sb3
	$(BIN)/python -m benchmarks.music
	$(BIN)/python -m benchmarks.rl_tuner
	$(BIN)/python -m benchmarks.seqgan
	$(BIN)/python -m benchmarks.organ
	$(BIN)/python -m benchmarks.text
	$(BIN)/python -m benchmarks.gan
	$(BIN)/python -m benchmarks.steer
	$(BIN)/python -m benchmarks.latent
	$(BIN)/python -m benchmarks.fused
	$(BIN)/python -m benchmarks.dqn_gan

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache
