#!/usr/bin/env bash
# Create a virtual environment and train on this machine; arguments are passed on.
#   launch/local.sh
#   launch/local.sh --config.data.dir=DIR
#   CONFIG=configs/smoke.py launch/local.sh
# EXTRAS selects extras of pyproject.toml; the default is [gpu] if there is an NVIDIA driver.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CONFIG=${CONFIG:-configs/incp_snapshot.py}
if command -v nvidia-smi > /dev/null; then EXTRAS=${EXTRAS-[gpu]}; fi
. "$ROOT/launch/environment.sh"
prepare_environment "${EXTRAS-}"
exec "$VENV/bin/python" -m lungseg_jax.main --config="$CONFIG" "$@"
