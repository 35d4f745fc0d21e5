#!/usr/bin/env bash
# Builds the site from docs/ and the docstrings into build/site-docs; warnings are errors.
#   requirements/docs.sh PYTHON ENVIRONMENT
# PYTHON makes ENVIRONMENT, unless it was made from the same lock file. The docstrings are read from build/docs-src, an
# installation without what it depends on: in the checkout, networks/ and drivers/ are not where they are imported from.
set -euo pipefail
python=$1 environment=$2
cd "$(dirname "$0")/.."
lock=requirements/docs.txt
stamp=$environment/.recipe
bin=$environment/bin
pip=("$bin/python" -m pip -qq --disable-pip-version-check --no-input install --no-deps)

recipe() {
  echo "$PWD $(cksum < "$lock") $("$python" --version)"
}

if [ "$(cat "$stamp" 2> /dev/null)" != "$(recipe)" ]; then
  echo "docs: $lock into $environment"
  "$python" -m venv --clear "$environment"
  "${pip[@]}" --require-hashes --only-binary=:all: -r "$lock"
  recipe > "$stamp"
fi
rm -rf build/lib build/docs-src
"${pip[@]}" --no-build-isolation --target build/docs-src .
NO_MKDOCS_2_WARNING=1 "$bin/mkdocs" build --strict
echo "docs: build/site-docs/index.html"
