#!/usr/bin/env bash
# Writes the lock files from the .in files: requirements/lock.sh UV [--upgrade]
set -euo pipefail
cd "$(dirname "$0")"
uv=$1
shift

compile() { # NAME [ARGUMENT...]: reads NAME.in, writes NAME.txt
  local name=$1
  shift
  echo "lock: requirements/$name.txt"
  "$uv" pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
    --custom-compile-command 'make lock' --output-file "$name.txt" "$@" > /dev/null
}

compile build build.in "$@"
compile audit audit.in "$@"
compile docs docs.in "$@"
compile tf221 tf221.in --overrides tf221-overrides.txt --constraints build.txt "$@"
compile tf215 tf215.in --constraints build.txt "$@"
for stack in tf221 tf215; do
  echo tensorflow | compile "$stack-tensorflow-only" - --constraints "$stack.txt" "$@"
done
