# make demo: install, train three minutes, look at the pictures.  make test: set up and run the tests (under 8 minutes
# on two cores).  make test-all: the slow ones, too.  make test-bfloat16: trainings and policies in bfloat16.
# make test-faults: kills, signals, damaged files and full disks (a quarter of an hour), counted in docs/results/faults.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup demo test test-all test-slow test-bfloat16 test-faults fuzz check benchmarks benchmarks-quick clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "rlgen needs Python 3.11 to 3.13; say which with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,benchmarks]'
	touch $@

demo: setup
	$(BIN)/rlgen train env=pixel agent=dqn

test: setup
	$(BIN)/python -m pytest -n 2

test-all: setup
	$(BIN)/python -m pytest -n 2 -m "not faults"

test-slow: setup
	$(BIN)/python -m pytest -n 2 -m slow

# What depends on the number format: forced, whatever the processor.
test-bfloat16: setup
	RLGEN_TEST_PRECISION=bfloat16 $(BIN)/python -m pytest -n 2 tests/test_train.py tests/test_agents.py \
		tests/test_policies.py tests/test_latent_gan.py tests/test_latent_music.py tests/test_checkpoint.py

# Faults that take long to inject; what came of them is in docs/results.
test-faults: setup
	$(BIN)/python -m pytest -n 0 -m faults --counts docs/results/faults.json tests/faults

FUZZ_SECONDS ?= 600
fuzz: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	$(BIN)/python -m tests.fuzz.campaign $(FUZZ_SECONDS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

BENCHMARKS := precision speed music resketch digits sprites learning_to_paint agents spiral vs_sb3 rl_tuner \
  seqgan organ tunes text gan steer latent fused dqn_gan

# Long: about ten hours on two cores. Interrupted, it goes on where it was; what is complete for this version of the
# code is skipped. Each writes its table and pictures below docs/results.
benchmarks: setup $(VENV)/.benchmarks
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name once=true || exit 1; done

# The same code in minutes, with tiny sizes and synthetic files; tables go below outputs/benchmarks/quick.
benchmarks-quick: setup $(VENV)/.benchmarks
	for name in $(BENCHMARKS); do \
	  RLGEN_CACHE=outputs/benchmarks/quick/cache $(BIN)/python -m benchmarks.$$name quick=true || exit 1; done

$(VENV)/.benchmarks: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[benchmarks]'
	touch $@

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache
