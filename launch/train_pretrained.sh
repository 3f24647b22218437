#!/usr/bin/env bash
# Train the weights that the package ships, on phantoms only, and put them into the package.
#   launch/train_pretrained.sh            # an hour on two CPU cores
# It resumes, and arguments are passed on to the training. Seeds are fixed, but another
# machine rounds differently.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-python3}
VENV=${VENV:-$ROOT/.venv}
WORKDIR=${WORKDIR:-$ROOT/runs/pretrained}
. "$ROOT/launch/environment.sh"
prepare_environment "$ROOT" ""
cd "$ROOT"
"$VENV/bin/python" -m lungseg_jax.main --config=configs/incp_snapshot.py:phantoms \
  --workdir="$WORKDIR" "$@"
rm -rf "$WORKDIR/bundle"
"$VENV/bin/python" -m lungseg_jax export --run="$WORKDIR" --members=last \
  --license=apache-2.0 "$WORKDIR/bundle"
cp "$WORKDIR/metrics.jsonl" "$WORKDIR/bundle/metrics.jsonl"
PACKAGED=lungseg_jax/inference/ensemble/pretrained
rm -rf "$PACKAGED"
mv "$WORKDIR/bundle" "$PACKAGED"
