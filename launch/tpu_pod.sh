#!/usr/bin/env bash
# Train on all hosts of a TPU pod; arguments are passed on.
#   launch/tpu_pod.sh NAME ZONE --dry-run              # prints the commands
#   launch/tpu_pod.sh NAME ZONE --workdir=gs://BUCKET/run --config.data.dir=gs://BUCKET/ct
#   CONFIG=configs/incp.py:full launch/tpu_pod.sh NAME ZONE
# NAME and ZONE identify the TPU VM for gcloud. The checkout is copied to every host and
# installed there. CONFIG defaults to configs/incp_snapshot.py:full. --workdir must be on
# Cloud Storage or on a file system that all hosts share. Repeat the command to resume a
# training that was interrupted.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CONFIG=${CONFIG:-configs/incp_snapshot.py:full}
. "$ROOT/launch/environment.sh"
if [ $# -lt 2 ]; then
  echo "error: launch/tpu_pod.sh NAME ZONE [--dry-run] [--KEY=VALUE ...]" >&2
  exit 2
fi
name=$1 zone=$2
shift 2
dry_run=0
if [ "${1:-}" = --dry-run ]; then dry_run=1; shift; fi
if [ $dry_run = 0 ] && ! command -v gcloud > /dev/null; then
  echo "error: gcloud is not installed here." >&2
  exit 2
fi
tpu=(gcloud compute tpus tpu-vm)
copied=(lungseg_jax configs launch pyproject.toml setup.py README.md LICENSE)
program=$(run_or_show 1 EXTRAS='[tpu,gcs]' CONFIG="$CONFIG" launch/local.sh --distributed "$@")
run_or_show $dry_run "${tpu[@]}" ssh "$name" --zone="$zone" --worker=all \
  --command="mkdir -p lungseg"
run_or_show $dry_run "${tpu[@]}" scp --recurse "${copied[@]/#/$ROOT/}" \
  "$name:lungseg/" --zone="$zone" --worker=all
run_or_show $dry_run "${tpu[@]}" ssh "$name" --zone="$zone" --worker=all \
  --command="cd lungseg && env $program"
