#!/usr/bin/env bash
# Sets up a virtual environment, then trains on this machine; arguments go to the program.
#   launch/local.sh
#   launch/local.sh --config.data.dir=DIR
#   CONFIG=configs/smoke.py launch/local.sh
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-python3}
VENV=${VENV:-$ROOT/.venv}
CONFIG=${CONFIG:-configs/incp_snapshot.py}
. "$ROOT/launch/environment.sh"
prepare_environment "$ROOT" ""
exec "$VENV/bin/python" -m lungseg_jax.main --config="$CONFIG" "$@"
