# Every target does all its set-up: git, make and a Python 3.11 to 3.13 are enough. `make help` explains.
#
# The environment is .venv, made once by .ci/setup from requirements.lock and made again when that changes.

PROFILE ?= organism
MODEL   ?= llava_onevision
VENV    ?= .venv
PYTHON  ?=
SYSTEM  ?=
ARGS    ?=
RAY     ?=
RAY_ADDRESS ?=

ifeq ($(strip $(SYSTEM)),)
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
else
PY    := $(or $(PYTHON),python3)
READY := system
endif

DEFAULT_PROFILE := organism
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9][0-9]_*.ipynb))
CODE      := autosteer_lib tests $(wildcard bench)

# What every process needs for numbers that come out the same; the driver sets the same for its kernels.
export PYTHONHASHSEED := 0
export TOKENIZERS_PARALLELISM := false
export JUPYTER_PREFER_ENV_PATH := 1
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.DEFAULT_GOAL := help
.PHONY: help setup system plan fetch scale-out rehearse reproduce verify test lint unit notebooks lab organism replicates bench publish lock clean distclean
.SUFFIXES:

help:
	@echo 'make reproduce   run the notebooks, regenerate every table and figure, compare with the committed ones'
	@echo 'make verify      only compare: "N of N numbers reproduced", and each one that is not'
	@echo 'make test        ruff, mypy, unit tests with coverage, then the committed notebooks by nbval'
	@echo 'make lab         JupyterLab on the notebooks'
	@echo 'make plan        what a profile would download: sizes, licences, gates, memory, time; asks no network'
	@echo 'make fetch       download it, checked and resumable; ARGS=--families: a checkpoint of each family too'
	@echo 'make rehearse    PROFILE=paper: its own notebooks on shrunken models and stand-in rows, before anything is downloaded'
	@echo 'make organism    train a shipped model again and hold it to its bounds; MODEL=chameleon: the second one'
	@echo 'make replicates  train a shipped model under other seeds too and measure the methods on each: half an hour of a core each'
	@echo 'make bench       measure speed and memory; results as JSON in bench/results'
	@echo 'make publish     maintainers: run, then commit-ready tables, figures and executed notebooks'
	@echo 'make lint        ruff, mypy and notebook hygiene only'
	@echo 'make unit        the unit tests only; ARGS="-m battery": the model families'
	@echo 'make setup       only make the environment'
	@echo 'make lock        maintainers: make requirements.lock again from pyproject.toml'
	@echo 'make clean       remove what was built; make distclean: the environment too'
	@echo
	@echo 'PROFILE=name     organism (default), chameleon, smoke, small, paper, or the path of a .toml file'
	@echo 'PYTHON=path      the Python to build the environment with; default: the newest of 3.13, 3.12, 3.11'
	@echo 'VENV=folder      where the environment is; default .venv'
	@echo 'SYSTEM=1         install nothing and use PYTHON (default python3) as it is: for a GPU machine with a'
	@echo '                 torch of its own. It must meet the ranges in pyproject.toml; that is checked first'
	@echo 'RAY=1            reproduce: one process a GPU makes the answers, by Ray; RAY_ADDRESS=host:6379: on that cluster'
	@echo 'ARGS="…"         more options for the program that the target starts, as in ARGS="-p seed=1"'

setup: $(READY)

$(VENV)/.ready: requirements.lock pyproject.toml .ci/setup
	@.ci/setup '$(VENV)' '$(PYTHON)'
	@touch '$@'

system:
	@$(PY) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "SYSTEM=1: $(PY) is not a Python 3.11, 3.12 or 3.13; name one: make PYTHON=…" >&2; exit 1; }
	@$(PY) .ci/check_system.py $(if $(filter test lint unit,$(MAKECMDGOALS)),--dev)

# RAY=1 or RAY_ADDRESS=host:port: the answers come from Ray actors.
ON_RAY := $(if $(RAY_ADDRESS),--ray '$(RAY_ADDRESS)',$(if $(filter-out 0,$(RAY)),--ray))

reproduce: $(READY)
	@$(PY) -m autosteer_lib.reproduce --profile '$(PROFILE)' $(ON_RAY) $(ARGS)

plan: $(READY)
	@$(PY) -m autosteer_lib.plan --profile '$(PROFILE)' $(ARGS)

rehearse: $(READY)
	@$(PY) -m autosteer_lib.rehearsal --profile '$(PROFILE)' $(ARGS)

fetch: $(READY)
	@$(PY) -m autosteer_lib.fetch --profile '$(PROFILE)' $(ARGS)

verify: $(READY)
	@$(PY) -m autosteer_lib.verify --profile '$(PROFILE)' $(ARGS)

# Publishes until the executed notebooks show the comparison with what is published: two passes, most often.
publish: $(READY)
	@$(PY) -m autosteer_lib.reproduce --profile '$(PROFILE)' --update $(ARGS)

test: lint unit scale-out notebooks

lint: $(READY)
	$(PY) -m ruff check $(CODE) $(wildcard notebooks)
	$(PY) -m ruff format --check $(CODE)
	$(PY) -m mypy $(CODE)
	$(if $(NOTEBOOKS),$(PY) -m autosteer_lib.notebook_hygiene $(NOTEBOOKS))

RAY_TESTS = tests/test_on_ray.py tests/test_slurm.py
RAY_BENCH = 'tests/test_bench.py::test_a_quick_run_writes_the_whole_file[scale_out]'

# All cores, one thread each: threads that wait for each other are slower than one. A file's tests stay together,
# because they share what a fixture built. A worker needs about 1 GB, so there are four at most.
unit: $(READY)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest tests $(addprefix --ignore=,$(RAY_TESTS)) --deselect $(RAY_BENCH) -n logical --maxprocesses 4 --dist loadfile --cov --cov-report=term $(ARGS)

# Apart from the others: a Ray of several processes wants the cores for itself while it starts.
scale-out: $(READY)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest $(RAY_TESTS) $(RAY_BENCH)

# The committed notebooks carry the default profile's outputs, so only there can nbval compare them.
# Two at once, since a kernel with its model takes 1.6 GB; those that read the others' tables come after them.
READERS = $(shell grep -ls reads-earlier-tables $(NOTEBOOKS))
LONGEST = $(shell grep -ls starts-first $(NOTEBOOKS))
NBVAL    = HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest --nbval-lax --nbval-current-env -n logical --maxprocesses 2 --dist loadfile
notebooks: $(READY)
ifeq ($(PROFILE),$(DEFAULT_PROFILE))
	$(NBVAL) $(LONGEST) $(filter-out $(READERS) $(LONGEST),$(NOTEBOOKS))
	$(NBVAL) $(READERS)
else
	$(PY) -m autosteer_lib.reproduce --profile '$(PROFILE)'
endif

lab: $(READY)
ifeq ($(PROFILE),$(DEFAULT_PROFILE))
	$(PY) -m jupyterlab --notebook-dir=notebooks $(ARGS)
else
	$(PY) -m jupyterlab --notebook-dir="$$($(PY) -m autosteer_lib.reproduce --profile '$(PROFILE)' --prepare)" $(ARGS)
endif

# Threads that wait for one another sleep: beside other work, spinning ones made a training twenty times slower.
organism: $(READY)
	OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 $(PY) -m autosteer_lib.organism --model '$(MODEL)' $(ARGS)

replicates: $(READY)
	@$(PY) -m autosteer_lib.replicates --model '$(MODEL)' $(ARGS)

bench: $(READY)
	$(PY) -m bench --profile '$(PROFILE)' $(ARGS)

lock:
	uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --extra dev \
		--no-header --no-emit-index-url -o requirements.lock

clean:
	rm -rf build .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find autosteer_lib tests notebooks $(wildcard bench) -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf '$(VENV)'
