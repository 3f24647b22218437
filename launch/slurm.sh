#!/usr/bin/env bash
# Submits a training to Slurm, one process for each GPU; arguments go to the program.
#   launch/slurm.sh --dry-run                          # shows the command, submits nothing
#   NODES=2 GPUS=4 launch/slurm.sh --config.data.dir=DIR --config.train.batch_size=32
#   CONFIG=configs/incp.py:full launch/slurm.sh
# NODES and GPUS (of a node) are 1 where they are not set, CONFIG is
# configs/incp_snapshot.py:full, and VENV, the environment, .venv beside launch/. Partition,
# account and time are sbatch's own: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT.
# The checkout and the folder that the job runs in have to lie on a shared file system. A
# minute before its time is up, and when it is preempted, the job saves and is queued again.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-python3}
VENV=${VENV:-$ROOT/.venv}
CONFIG=${CONFIG:-configs/incp_snapshot.py:full}
NODES=${NODES:-1}
GPUS=${GPUS:-1}
. "$ROOT/launch/environment.sh"
dry_run=0
if [ "${1:-}" = --dry-run ]; then dry_run=1; shift; fi
if [ $dry_run = 0 ]; then
  command -v sbatch > /dev/null || { echo "error: there is no sbatch here." >&2; exit 2; }
  prepare_environment "$ROOT" "[gpu]"
fi
program=$(run_or_show 1 "$VENV/bin/python" -m lungseg_jax.main --distributed \
  --config="$CONFIG" "$@")
# Status 75: stopped by a signal, and saved.
again='{ status=$?; [ $status != 75 ] || scontrol requeue $SLURM_JOB_ID; exit $status; }'
# Every process sees all GPUs of its node, and JAX gives it the one of its own number.
run_or_show $dry_run sbatch --job-name=lungseg --nodes="$NODES" \
  --ntasks-per-node="$GPUS" --gpus-per-node="$GPUS" \
  --requeue --signal=USR1@60 --open-mode=append \
  --wrap="srun --gpu-bind=none $program || $again"
