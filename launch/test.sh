#!/usr/bin/env bash
# Create a virtual environment with the test extras, then lint and run the tests.
#   launch/test.sh
#   launch/test.sh tests/training/test_losses.py -k dice
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/launch/environment.sh"
prepare_environment "[test]"
cd "$ROOT"
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
# One process per core. The tests of a file share their fixtures, and files are run in the
# order of tests/conftest.py.
exec "$VENV/bin/python" -m pytest --numprocesses=auto --dist=loadfile \
  --no-loadscope-reorder "$@"
