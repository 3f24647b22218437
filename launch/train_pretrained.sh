#!/usr/bin/env bash
# Train the two networks that the package ships, on phantoms only, and put them into the
# package.
#   launch/train_pretrained.sh            # one to two hours on two CPU cores
# It resumes, and arguments are passed on to the trainings. Seeds are fixed, but another
# machine rounds differently.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORKDIR=${WORKDIR:-$ROOT/runs/pretrained}
. "$ROOT/launch/environment.sh"
prepare_environment ""
cd "$ROOT"
for SEED in 0 1; do
  "$VENV/bin/python" -m lungseg_jax.main --config=configs/incp_snapshot.py:phantoms \
    --config.seed="$SEED" --workdir="$WORKDIR/seed$SEED" "$@"
done
rm -rf "$WORKDIR/bundle"
# Trainings start from the last member.
"$VENV/bin/python" -m lungseg_jax export --run="$WORKDIR/seed1" --run="$WORKDIR/seed0" \
  --members=last --license=apache-2.0 "$WORKDIR/bundle"
for SEED in 0 1; do
  cp "$WORKDIR/seed$SEED/metrics.jsonl" "$WORKDIR/bundle/metrics_seed$SEED.jsonl"
done
PACKAGED=lungseg_jax/inference/ensemble/pretrained
rm -rf "$PACKAGED"
mv "$WORKDIR/bundle" "$PACKAGED"
