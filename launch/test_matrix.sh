#!/usr/bin/env bash
# Run the tests on each Python from 3.11 to 3.14 that is found, with the newest versions of the
# dependencies, and on the first one also with the lowest that pyproject.toml allows.
#   launch/test_matrix.sh
#   launch/test_matrix.sh tests/models          # only these
# The virtual environments are created in $VENVS.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENVS=${VENVS:-$ROOT/.venvs}
cd "$ROOT"

# Usage: run_tests NAME PYTHON RESOLUTION [TEST...]
run_tests() {
  local name=$1 python=$2 resolution=$3 venv="$VENVS/$1"
  shift 3
  echo "=== $name"
  [ -x "$venv/bin/uv" ] || { "$python" -m venv "$venv" && "$venv/bin/pip" install --quiet uv; }
  # pip cannot resolve to the lowest versions.
  VIRTUAL_ENV=$venv "$venv/bin/uv" pip install --quiet --resolution "$resolution" \
    --editable ".[test]"
  "$venv/bin/python" -m pytest --numprocesses=auto --dist=loadfile \
    --no-loadscope-reorder "$@" || failed+=("$name")
}

failed=() first=""
for version in 3.11 3.12 3.13 3.14; do
  python=$(command -v "python$version") || continue
  "$python" -c "" 2>/dev/null || continue  # a shim of pyenv without its Python
  first=${first:-$python}
  run_tests "python$version" "$python" highest "$@"
done
if [ -z "$first" ]; then
  echo "error: found none of python3.11 to python3.14." >&2
  exit 2
fi
run_tests lowest "$first" lowest-direct "$@"
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
