#!/usr/bin/env bash
# Writes the peers' lock files from the .in files: benchmarks/requirements/lock.sh UV [--upgrade]
# `make lock` installs the same UV. UV_FIND_LINKS names a folder or page with the CPU build of PyTorch.
set -euo pipefail
cd "$(dirname "$0")"
uv=$1
shift

for name in stable_baselines3 sbx tf_agents cleanrl; do
  echo "lock: benchmarks/requirements/$name.txt"
  "$uv" pip compile --quiet --no-config --no-emit-find-links --python-version 3.11 --generate-hashes \
    --custom-compile-command 'benchmarks/requirements/lock.sh' --output-file "$name.txt" "$name.in" "$@" > /dev/null
done
