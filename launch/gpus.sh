#!/usr/bin/env bash
# Train on the GPUs of this machine with one process for each; arguments are passed on.
#   launch/gpus.sh --dry-run                           # prints the commands
#   launch/gpus.sh --config.data.dir=DIR
#   GPUS=2 CONFIG=configs/incp.py:full launch/gpus.sh
# Defaults: the GPUs that CUDA_VISIBLE_DEVICES names, or all if it is not set;
# CONFIG=configs/incp_snapshot.py:full, PORT=12355, by which the processes find each other,
# VENV=.venv in the checkout, and EXTRAS=[gpu], extras of pyproject.toml. Only the first
# process prints. On Ctrl-C or SIGTERM all of them save and end with exit status 75. A
# single process, as launch/local.sh starts, also uses all GPUs; one for each prepares their
# work at once.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CONFIG=${CONFIG:-configs/incp_snapshot.py:full}
PORT=${PORT:-12355}
if [ -z "${GPUS:-}" ] && [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
  IFS=, read -ra visible <<< "$CUDA_VISIBLE_DEVICES"
  GPUS=${#visible[@]}
  [ "$CUDA_VISIBLE_DEVICES" != -1 ] || GPUS=0  # as CUDA reads it
fi
GPUS=${GPUS:-$(nvidia-smi --list-gpus 2> /dev/null | wc -l || true)}
. "$ROOT/launch/environment.sh"
dry_run=0
if [ "${1:-}" = --dry-run ]; then dry_run=1; shift; fi
if ! [[ $GPUS =~ ^[1-9][0-9]*$ ]]; then
  echo "error: nvidia-smi finds no GPU here, or CUDA_VISIBLE_DEVICES names none;" \
    "GPUS=N names another number." >&2
  exit 2
fi
[ $dry_run = 1 ] || prepare_environment "${EXTRAS-[gpu]}"

pids=()
for ((i = 0; i < GPUS; i++)); do
  command=(env "JAX_COORDINATOR_ADDRESS=localhost:$PORT" "JAX_NUM_PROCESSES=$GPUS"
    "JAX_PROCESS_ID=$i" "JAX_LOCAL_DEVICE_IDS=$i"
    "$VENV/bin/python" -m lungseg_jax.main --distributed --config="$CONFIG" "$@")
  if [ $dry_run = 1 ]; then
    run_or_show 1 "${command[@]}"
  else
    "${command[@]}" &
    pids+=($!)
  fi
done
[ $dry_run = 0 ] || exit 0

# What runs in the background does not get Ctrl-C. What is sent to the whole group, as by
# timeout, comes twice, which a training takes for one signal. Groups of their own would
# avoid that, but what kills this one would leave them behind.
trap 'kill -TERM "${pids[@]}" 2> /dev/null || true' INT TERM HUP USR1
status=0
for pid in "${pids[@]}"; do
  until wait "$pid"; do
    code=$?
    # A signal ends the waiting, but not the process that is waited for.
    if [ $code -gt 128 ] && kill -0 "$pid" 2> /dev/null; then continue; fi
    status=$code
    break
  done
done
exit $status
