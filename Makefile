# make demo: install, train two minutes, look at the pictures.  make test: set up and run the tests (seven to fifteen
# minutes on two cores).  make test-all: the slow ones, too.  make test-bfloat16: trainings and policies in bfloat16.
# make test-scale: several hosts (two minutes).  make test-faults: kills, signals, damaged files and full disks (a
# quarter of an hour), counted in docs/results/faults.md.
# make setup-locked: the same environment from files whose hashes are in locks/.  make release: dist/ with checksums and a
# list of what is in it (SBOM).  make docs: the documentation's site.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup setup-locked lock release audit demo test test-all test-slow test-long test-bfloat16 test-faults test-scale fuzz coverage check docs \
  benchmarks benchmarks-quick system clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "rlgen needs Python 3.11 to 3.13; say which with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,benchmarks]'
	touch $@

# What CI installs, on Linux x86-64 with Python 3.11: every file by its hash, but for torch (locks/ci.txt says why).
# First what builds, then everything without looking for dependencies, since the list is complete; pip check proves it.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
setup-locked:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "the locks are for Python 3.11; say where it is with make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --no-deps --require-hashes -r locks/build.txt
	$(PIP) install --no-deps --require-hashes --no-build-isolation -r locks/ci.txt
	$(PIP) install -c constraints.txt torch
	$(PIP) install --no-deps --no-build-isolation -e .
	$(PIP) check
	touch $(VENV)/.ready $(VENV)/.benchmarks

# What some tests run: a browser for the report's page, a database for many that search together, hosts on one machine.
system:
	command -v chromium && command -v ip && ls /usr/lib/postgresql || \
	  (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium postgresql iproute2)

TOOLS := build/tools
$(TOOLS): .ci/tools.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check -r .ci/tools.txt
	touch $@

# Resolves anew within constraints.txt what is not in the locks yet, and keeps the rest; delete a lock to renew all of it.
COMPILE := $(TOOLS)/bin/pip-compile --quiet --generate-hashes --strip-extras \
  --no-annotate --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
  --unsafe-package torch -c constraints.txt
lock: $(TOOLS)
	$(COMPILE) --no-header -o locks/build.txt locks/build.in
	$(COMPILE) --no-header --extra dev --extra benchmarks -o locks/ci.txt pyproject.toml
	for name in build ci; do \
	  sed '/^# WARNING/,$$d' locks/$$name.txt | cat locks/$$name.head - > build/lock && mv build/lock locks/$$name.txt; done

# The versions of the locks, in an environment that holds the wheel and what it needs, and nothing else.
release: $(VENV)/.ready $(TOOLS)
	rm -rf dist build/released && mkdir -p dist
	$(BIN)/python -m hatchling build -d dist -t wheel -t sdist
	sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' locks/ci.txt > build/versions.txt
	$(PYTHON) -m venv --without-pip build/released
	$(PIP) --python build/released/bin/python install -c constraints.txt -c build/versions.txt --find-links dist rlgen
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON \
	  -o dist/rlgen.cdx.json build/released/bin/python
	$(BIN)/python .ci/check_release.py dist
	cd dist && sha256sum * > SHA256SUMS

# Known weaknesses of the locked versions, but for those that .ci/audit-ignored.txt gives a reason for. Asks a service on
# the network.
audit: $(TOOLS)
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r locks/ci.txt \
	  $$(sed -n 's/^\([A-Z][A-Za-z0-9-]*\) .*/--ignore-vuln \1/p' .ci/audit-ignored.txt)

demo: setup
	$(BIN)/rlgen train env=pixel agent=dqn

# In two parts, the second of which is `make coverage`.
test: setup
	$(BIN)/python -m pytest -n 2 $(COVERED:%=--ignore=tests/test_%.py)
	$(MAKE) coverage

test-all: test test-slow test-long

test-slow: setup
	$(BIN)/python -m pytest -n 2 -m slow

# Trainings of minutes.
test-long: setup
	$(BIN)/python -m pytest -n 2 -m long

# What depends on the number format: forced, whatever the processor.
test-bfloat16: setup
	RLGEN_TEST_PRECISION=bfloat16 $(BIN)/python -m pytest -n 2 --every-case tests/test_train.py tests/test_agents.py \
		tests/test_policies.py tests/test_latent_gan.py tests/test_latent_music.py tests/test_checkpoint.py

# The modules that read what others wrote are run through line by line (.coveragerc).
COVERED := checkpoint edges hostile_folders robust bad_input files data music_files generator_from_file configs command_lines \
  combinations fuzz cli migrations api captions damages paint
coverage: setup
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term $(COVERED:%=tests/test_%.py)

# Faults that take long to inject; what came of them is in docs/results.
test-faults: setup
	$(BIN)/python -m pytest -n 0 -m faults --counts docs/results/faults.json tests/faults

# Several hosts, as network namespaces: needs iproute2 and root.
test-scale: setup
	$(BIN)/python -m pytest -n 0 -m scale tests/scale

FUZZ_SECONDS ?= 600
fuzz: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	$(BIN)/python -m tests.fuzz.campaign $(FUZZ_SECONDS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pages of docs/, one for each choice of the command line, and the Python API: build/site/index.html. Needs no network.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# What measures time has the machine alone; what trains has a core, two at a time, the longest first.
TIMED := demo precision speed gpu time_to startup music scaling vs_sb3
TRAINED := learning_to_paint digits resketch captions diffusion diffusion_rewards rl_tuner steer spiral seqgan text latent \
  fused gan agents paint painters organ sprites dqn_gan tunes
BENCHMARKS := $(TIMED) $(TRAINED)

# Long: the minutes of the tables sum to some twenty hours of one core, so about half a day on two; `BENCHMARKS_AT_ONCE=8`
# where there are more. Interrupted, it goes on where it was; what is complete for this version of the code is skipped.
# Each writes its table and pictures below docs/results.
BENCHMARKS_AT_ONCE ?= 2
benchmarks: setup $(VENV)/.benchmarks
	for name in $(TIMED); do $(BIN)/python -m benchmarks.$$name once=true || exit 1; done
	printf '%s\n' $(TRAINED) | OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE xargs -n 1 -P $(BENCHMARKS_AT_ONCE) \
	  sh -c '$(BIN)/python -m benchmarks.$$0 once=true || exit 255'

# The same code in minutes, with tiny sizes and synthetic files; tables go below outputs/benchmarks/quick.
benchmarks-quick: setup $(VENV)/.benchmarks
	for name in $(BENCHMARKS); do \
	  RLGEN_CACHE=outputs/benchmarks/quick/cache $(BIN)/python -m benchmarks.$$name quick=true || exit 1; done

$(VENV)/.benchmarks: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[benchmarks]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
