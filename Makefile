# make train, make test, make lint, make install; see README.md.
#   STACK=tf221 (Python 3.11 to 3.13) or tf215 (Python 3.11)
#   VENV=DIR, PYTHON=INTERPRETER, ARGS='...' (for ppo-train and pytest)
STACK ?= tf221
VENV ?= .venv
PYTHON ?=
ARGS ?=
BIN = $(VENV)/bin
UV_VERSION = 0.13.8

.PHONY: train test test-slow lint install lock clean

train: install
	"$(BIN)/ppo-train" $(ARGS)

test: install
	"$(BIN)/pytest" -n 2 -m "not slow" $(ARGS)

test-slow: install
	"$(BIN)/pytest" -n 2 -m slow $(ARGS)

# Types are checked in a regular installation: mypy does not find the mapped packages of an editable one.
lint: install
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	rm -rf build
	"$(BIN)/python" -m pip install -qq --no-deps --no-build-isolation --target build/site .
	MYPYPATH=build/site "$(BIN)/mypy" build/site/ppo_agent examples

# Does nothing if VENV was made from the same lock file, setup.py and interpreter version.
install:
	@requirements/install.sh "$(STACK)" "$(VENV)" "$(PYTHON)"

# Versions stay as they are where requirements/*.in allow it; ARGS=--upgrade takes the newest.
lock:
	test -x build/uv/bin/uv || python3 -m venv build/uv
	build/uv/bin/pip install --quiet uv==$(UV_VERSION)
	requirements/lock.sh "$(CURDIR)/build/uv/bin/uv" $(ARGS)

clean:
	rm -rf build dist *.egg-info
