"""Options side by side: the same seeds with each of several settings.

    python benchmarks/paired.py DATA optimizer.muon_hidden_only=False,True
    python benchmarks/paired.py DATA model.norm=batch,group,instance --size=192 --seeds=5

DATA holds 2d_images/ and 2d_masks/. Every run has one cycle and the same split, and is
scored on the test slices at their own size, with threshold 0.5. The differences are those
of runs with the same seed, which share their weights at the start and their batches.
"""

import argparse
import ast
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from lungseg_jax.experiment import run_experiment
from lungseg_jax.training.config import default_config


def score(args, key: str, value, seed: int) -> dict:
    """Train once; return scores on the test split and the last training loss."""
    c = default_config()
    c.name, c.seed, c.cache_dir = "paired", seed, args.cache
    c.data.dir, c.data.image_size = str(args.data.absolute()), args.size
    c.data.test_fraction, c.data.validation_fraction = args.test_fraction, 0.0
    c.schedule.cycles, c.train.total_steps = 1, args.steps
    c.train.save_every = c.train.validate_every = args.steps
    settings = {key: value}
    for setting in args.set:
        other, _, text = setting.partition("=")
        settings[other] = parse(text)
    c.update_from_flattened_dict(settings)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        evaluation = run_experiment(c, f"{folder}/run")
        seconds = time.perf_counter() - start
        rows = Path(folder, "run", "metrics.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, rows) if row["kind"] == "train"]
    scores = {name: evaluation["ensemble"][name] for name in ("iou_pooled", "iou_min")}
    return scores | {"loss": float(np.mean(losses[-5:])), "seconds": seconds}


def parse(text: str):
    """Return the Python value of a setting; a word that is none is a string."""
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("setting", help="a knob and its values, KEY=A,B")
    parser.add_argument("--set", nargs="*", default=[], help="knobs of all runs")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test_fraction", type=float, default=0.3)
    parser.add_argument("--cache", default="", help="the cache folder")
    args = parser.parse_args()
    key, _, values = args.setting.partition("=")
    first: dict[int, dict] = {}
    for text in values.split(","):
        rows = []
        for seed in range(args.seeds):
            rows.append(score(args, key, parse(text), seed))
            shown = {name: round(value, 4) for name, value in rows[-1].items()}
            print(f"{key}={text} seed {seed}: {shown}", flush=True)
            first.setdefault(seed, rows[-1])
        for name in ("iou_pooled", "iou_min", "loss"):
            scores = np.array([row[name] for row in rows])
            differences = scores - [first[seed][name] for seed in range(args.seeds)]
            each = ", ".join(f"{difference:+.4f}" for difference in differences)
            print(
                f"  {name:10} mean {scores.mean():.4f}, difference "
                f"{differences.mean():+.4f} ({each})",
                flush=True,
            )


if __name__ == "__main__":
    main()
