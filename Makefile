# make train, make test, make lint, make docs, make benchmark, make reliability: see README.md. All of them set up a virtual
# environment first, once.
#   STACK   tf221 (Python 3.11 to 3.13) or tf215 (Python 3.11)
#   VENV    the folder of the virtual environment
#   PYTHON  the interpreter it is made with; without it the first suitable one on PATH
#   ARGS    more arguments for ppo-train, for pytest, for benchmarks/run.py, or for `uv pip compile`
STACK ?= tf221
VENV ?= .venv
PYTHON ?=
ARGS ?=
# Of make learning: environments or suites with commas between them, and runs of each.
TASKS ?= mujoco
SEEDS ?= 10

BIN = $(VENV)/bin
UV_VERSION = 0.13.8
SHELL = bash
.SHELLFLAGS = -euo pipefail -c

SMOKE = build/smoke/$(notdir $(VENV))

.PHONY: train test smoke test-slow properties reliability soak benchmark learning lint audit format docs install lock clean

train: install
	"$(BIN)/ppo-train" $(ARGS)

# XLA's programs are run once or twice: optimising them less saves a fifth of the time. test-slow compiles as users do,
# and so does the older stack, whose XLA does not know the second flag.
QUICK_XLA = $(if $(filter tf221,$(STACK)),--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false)

test: install
	XLA_FLAGS="$${XLA_FLAGS-$(QUICK_XLA)}" "$(BIN)/pytest" -n 2 -m "not slow" $(ARGS)

# For Pythons and stacks that there is no time to run the whole suite on: trains, exports, evaluates, tests the formulas.
smoke: install
	rm -rf "$(SMOKE)"
	"$(BIN)/ppo-train" --root_dir="$(SMOKE)" --total_environment_steps=20000 --num_eval_episodes=5
	"$(BIN)/ppo-eval" --policy_dir="$(SMOKE)/policy" --num_episodes=5
	"$(BIN)/pytest" -n 2 -m "not slow" tests/maths tests/common tests/test_stack.py $(ARGS)

test-slow: install
	"$(BIN)/pytest" -n 2 -m slow $(ARGS)

# Thousands of cases, others every time: some minutes.
properties: install
	"$(BIN)/pytest" tests/properties --hypothesis-profile=thorough $(ARGS)

# 200 kills, 100 corruptions, 50 signals, 300 trainings in one process, about half an hour: see docs/reliability.md.
reliability: install
	PYTHONPATH=tests "$(BIN)/python" -m reliability.kill $(ARGS)
	PYTHONPATH=tests "$(BIN)/python" -m reliability.corruptions
	PYTHONPATH=tests "$(BIN)/python" -m reliability.orphans
	PYTHONPATH=tests "$(BIN)/python" -m reliability.trainings

# Two hours of tiny runs with random faults, or ARGS=--minutes=N: see docs/reliability.md.
soak: install
	PYTHONPATH=tests "$(BIN)/python" -m reliability.soak $(ARGS)

# About half an hour; benchmarks/README.md tells what ARGS can choose.
benchmark: install
	"$(BIN)/python" -m benchmarks.run $(ARGS)

# Trains and draws docs/results anew; continues where it was stopped. A run of 1,000,000 steps takes 2 to 15 minutes.
learning: install
	"$(BIN)/python" -m benchmarks.learning --tasks="$(TASKS)" --seeds=$(SEEDS) $(ARGS)
	"$(BIN)/python" -m benchmarks.learning_report

# Types are checked in a regular installation: mypy does not find the mapped packages of an editable one.
lint: install
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	@test -x "$(BIN)/mypy" || { echo "lint: STACK=$(STACK) has no mypy, expected STACK=tf221" >&2; exit 1; }
	rm -rf build/lib build/site
	"$(BIN)/python" -m pip install -qq --no-deps --no-build-isolation --target build/site .
	MYPYPATH=build/site "$(BIN)/mypy" build/site/ppo_agent examples benchmarks \
	  | sed -E 's#^build/site/##; s#^ppo_agent/(networks|drivers)/#\1/#'
	@$(MAKE) --no-print-directory audit || echo "lint: make audit found vulnerabilities, see above; the code is clean" >&2

# Known vulnerabilities of the locked packages; says so and goes on where the service cannot be reached. What it finds
# fails here, but not in lint: an advisory of tonight shall not stop a change that has nothing to do with it.
audit: install
	@"$(BIN)/python" requirements/audit.py build/audit $(addprefix requirements/,$(STACK).txt build.txt audit.txt docs.txt)

# The site, into build/site-docs: warnings are errors.
docs: install
	@requirements/docs.sh "$(BIN)/python" build/docs-env

format: install
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

# Does nothing if VENV was made from the same lock file, setup.py and version of Python.
install:
	@requirements/install.sh "$(STACK)" "$(VENV)" "$(PYTHON)"

# Versions stay as they are where requirements/*.in allow it; ARGS=--upgrade takes the newest.
lock:
	test -x build/uv/bin/uv || python3 -m venv build/uv
	build/uv/bin/python -m pip install -qq uv==$(UV_VERSION)
	requirements/lock.sh "$(CURDIR)/build/uv/bin/uv" $(ARGS)

clean:
	rm -rf build dist *.egg-info
