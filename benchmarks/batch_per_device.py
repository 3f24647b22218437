"""Scores of the rule of `train.batch_per_device`, on phantoms and devices of a CPU.

    python benchmarks/batch_per_device.py
    python benchmarks/batch_per_device.py --config=incp_snapshot:scratch --per-device=2,4
    python benchmarks/batch_per_device.py --seeds=3 --set train.total_steps=240

Each training is the command `lungseg train` in a process of its own, in which the CPU
pretends to be several devices. The recipe, with its batch in all, is compared with a batch
for each device, with the rule and with the rates of the recipe. The numbers are those of
the test split; every training sees as many slices.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lungseg_jax.training.recipe_files import find_recipe

COUNT = "--xla_force_host_platform_device_count"


def train(args, workdir: Path, words: list[str]) -> dict:
    """Run one training; return its configuration and its scores."""
    command = [sys.executable, "-m", "lungseg_jax.main", f"--workdir={workdir}"]
    command += [f"--config={find_recipe(args.config)}"]
    command += [f"--config.{setting}" for setting in (*args.set, *words)]
    flags = f"{os.environ.get('XLA_FLAGS', '')} {COUNT}={args.devices}"
    subprocess.run(
        command, env=os.environ | {"XLA_FLAGS": flags}, check=True, stdout=sys.stderr
    )
    config = json.loads((workdir / "config.json").read_text())
    scores = json.loads((workdir / "evaluation.json").read_text())["ensemble"]
    return {"config": config, "scores": scores}


def unscaled(config: dict) -> list[str]:
    """Return the options of a run of the same batch and length, without the rule."""
    steps = [
        f"train.{name}" for name in ("total_steps", "save_every", "validate_every")
    ]
    return [
        f"{name}={config[name.split('.')[0]][name.split('.')[1]]}"
        for name in ("train.batch_size", "schedule.hold_steps", *steps)
    ]


def report(name: str, result: dict, seconds: float) -> None:
    config, scores = result["config"], result["scores"]
    print(
        f"{name:32} batch {config['train']['batch_size']:4}  "
        f"steps {config['train']['total_steps']:6}  "
        f"peak {config['schedule']['peak']:.2e}  "
        f"warm-up {config['schedule']['warmup_steps']:4}  "
        f"iou_pooled {scores['iou_pooled']:.4f}  iou_min {scores['iou_min']:.4f}  "
        f"({seconds:.0f} s)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="incp_snapshot:scratch")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--per-device", default="2,4", help="slices, such as 2,4")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], help="knobs of all trainings")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:

        def run(name: str, words: list[str]) -> dict:
            start, workdir = time.perf_counter(), Path(scratch, name)
            result = train(args, workdir, words)
            report(name, result, time.perf_counter() - start)
            return result

        for seed in range(args.seeds):
            run(f"recipe, seed {seed}", [f"seed={seed}"])
            for n in map(int, args.per_device.split(",")):
                words = [f"seed={seed}", f"train.batch_per_device={n}"]
                scaled = run(f"{n} each, seed {seed}", words)
                words = [f"seed={seed}", *unscaled(scaled["config"])]
                run(f"{n} each, its rates, seed {seed}", words)


if __name__ == "__main__":
    main()
