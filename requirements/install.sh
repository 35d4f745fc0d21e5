#!/usr/bin/env bash
# Creates a virtual environment with the locked packages and this checkout (editable), unless it is there already.
#   requirements/install.sh STACK VENV [PYTHON]
# STACK is the name of a lock file here (tf221, tf215); without PYTHON the first suitable interpreter is taken.
set -euo pipefail
stack=$1 venv=$2 python=${3:-}
cd "$(dirname "$0")/.."

fail() {
  echo "install: $*" >&2
  exit 1
}

case $stack in
  tf221) versions='3.11 3.12 3.13' ;;
  tf215) versions='3.11' ;;
  *) fail "STACK=$stack is unknown: expected tf221 (Python 3.11 to 3.13) or tf215 (Python 3.11)." ;;
esac
lock=requirements/$stack.txt
# What the environment and the editable installation were made from; written when they are complete.
lock_stamp=$venv/.ppo_agent_lock
setup_stamp=$venv/.ppo_agent_setup

# Prints the version of an interpreter; nothing if it does not run, as a pyenv shim may not.
version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null < /dev/null || true
}

lock_recipe() {
  echo "$stack $PWD $venv $(cat "$lock" requirements/build.txt requirements/install.sh | cksum)"
}

setup_recipe() {
  cksum < setup.py
}

has_locked_packages() {
  local version
  version=$(version_of "$venv/bin/python")
  [ -n "$version" ] && [ "$(cat "$lock_stamp" 2> /dev/null)" = "$(lock_recipe) $version" ] || return 1
  [ -z "$python" ] || [ "$(version_of "$python")" = "$version" ]
}

has_checkout() {
  [ "$(cat "$setup_stamp" 2> /dev/null)" = "$(setup_recipe)" ]
}

candidates() {
  local version
  if [ -n "$python" ]; then
    echo "$python"
    return
  fi
  for version in $versions ''; do
    type -aP "python${version:-3}" || true
  done
}

# Sets `interpreter` to the first candidate that runs, has a supported version and can make an environment.
find_interpreter() {
  local candidate version without_venv=
  while read -r candidate; do
    version=$(version_of "$candidate")
    [[ -n $version && " $versions " == *" $version "* ]] || continue
    interpreter=$candidate
    "$candidate" -c 'import ensurepip, venv' 2> /dev/null < /dev/null && return
    without_venv=$candidate
  done < <(candidates)
  if [ -n "$without_venv" ]; then
    fail "$without_venv cannot make virtual environments: install its venv module" \
      "(Debian, Ubuntu: apt install python3-venv), or name another interpreter with PYTHON=."
  elif [ -n "$python" ]; then
    version=$(version_of "$python")
    [ -n "$version" ] && version="is Python $version" || version='does not run'
    fail "PYTHON=$python $version: STACK=$stack needs Python ${versions// /, }."
  fi
  fail "no suitable Python was found: STACK=$stack needs Python ${versions// /, } on PATH, or its path in PYTHON=."
}

pip_install() {
  "$venv/bin/python" -m pip -qq --disable-pip-version-check --no-input install --no-deps "$@"
}

install_locked_packages() {
  if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
    fail "VENV=$venv holds something that is not a virtual environment: choose an empty or a new folder."
  fi
  find_interpreter
  echo "install: $lock into $venv with $interpreter ($(version_of "$interpreter")), about a minute"
  rm -f "$lock_stamp" "$setup_stamp"
  "$interpreter" -m venv --clear "$venv"
  pip_install --require-hashes -r requirements/build.txt
  pip_install --require-hashes --no-build-isolation -r "$lock"
  echo "$(lock_recipe) $(version_of "$venv/bin/python")" > "$lock_stamp"
}

install_checkout() {
  rm -f "$setup_stamp"
  pip_install --no-build-isolation --editable .
  setup_recipe > "$setup_stamp"
}

# No && or || around the calls: bash would ignore errors inside.
if ! has_locked_packages; then install_locked_packages; fi
if ! has_checkout; then install_checkout; fi
