#!/usr/bin/env bash
# Submit a training to Slurm with one process per GPU; arguments are passed on.
#   launch/slurm.sh --dry-run                          # prints the command
#   NODES=2 GPUS=4 launch/slurm.sh --config.data.dir=DIR
#   CONFIG=configs/incp.py:full launch/slurm.sh
# Defaults: NODES=1, GPUS=1 (per node), CONFIG=configs/incp_snapshot.py:full, VENV=.venv in
# the checkout, and EXTRAS=[gpu], extras of pyproject.toml. Set the partition, account and
# time limit by sbatch's own variables, SBATCH_PARTITION, SBATCH_ACCOUNT and
# SBATCH_TIMELIMIT. The checkout and the working directory of the job must be on a shared
# file system. A minute before its time limit, and when it is preempted, the job saves and
# is queued again.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CONFIG=${CONFIG:-configs/incp_snapshot.py:full}
NODES=${NODES:-1}
GPUS=${GPUS:-1}
. "$ROOT/launch/environment.sh"
dry_run=0
if [ "${1:-}" = --dry-run ]; then dry_run=1; shift; fi
if [ $dry_run = 0 ]; then
  command -v sbatch > /dev/null || { echo "error: sbatch is not installed here." >&2; exit 2; }
  prepare_environment "${EXTRAS-[gpu]}"
fi
program=$(run_or_show 1 "$VENV/bin/python" -m lungseg_jax.main --distributed \
  --config="$CONFIG" "$@")
# Exit status 75: stopped by a signal after saving. The job expands the variables.
# shellcheck disable=SC2016
again='{ status=$?; [ $status != 75 ] || scontrol requeue $SLURM_JOB_ID; exit $status; }'
# Every process sees all GPUs of its node, and JAX assigns it the one of its local rank.
run_or_show $dry_run sbatch --job-name=lungseg --nodes="$NODES" \
  --ntasks-per-node="$GPUS" --gpus-per-node="$GPUS" \
  --requeue --signal=USR1@60 --open-mode=append \
  --wrap="srun --gpu-bind=none $program || $again"
