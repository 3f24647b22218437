"""Mirror images in an ensemble: none, another one for each member, all four for each.

    python benchmarks/views.py RUN --data=DIR

DIR holds 2d_images/ and 2d_masks/. Scores the validation split of a run that was trained
on DIR, unchanged and as `benchmarks/stress/` changes it: the pooled IoU at the slices' own
size, threshold 0.5, without clean-up, and its difference to that without mirror images as a
95 % interval of a paired bootstrap over slices. Only the last way costs more: four times as
much.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from robustness import UNCHANGED, change, held_out

from lungseg_jax.data.pairs import find_pairs, read_slice
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.inference.ensemble.views import assign_views
from lungseg_jax.metrics import overlap
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder

LEVELS = (
    (UNCHANGED, UNCHANGED),
    ("small chest", 0.65),
    ("crop to one lung", 20),
    ("orientation", "turned by 90"),
    ("offset", 100),
    ("pneumonia", 0.15),
    ("consolidation", 0.3),
    ("effusion", 0.2),
)
RESAMPLES = 2000


def count(predictor, series) -> np.ndarray:
    """Return the pixel counts of each slice, `[n 3]`."""
    probabilities = predictor.probabilities((image, 1.0) for image in series.images)
    pairs = zip(probabilities, series.masks, strict=True)
    return np.stack([overlap.count_pixels(p.mean(0) > 0.5, mask) for p, mask in pairs])


def iou(counts: np.ndarray) -> float:
    return overlap.summarize(counts, resamples=0)["iou_pooled"]


def gain(counts: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two pooled IoUs."""
    rng, n = np.random.default_rng(0), len(counts)
    draws = [rng.integers(0, n, n) for _ in range(RESAMPLES)]
    differences = [iou(counts[draw]) - iou(reference[draw]) for draw in draws]
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    trained = load_run(Run.open(RunFolder(args.run)))
    plain = dataclasses.replace(trained, views={})
    mirrored = dataclasses.replace(trained, views=assign_views(list(trained.members)))
    pairs, _ = held_out(find_pairs(args.data), {"run": args.run}, "validation")
    slices = [read_slice(pair) for pair in pairs]
    print(f"{len(slices)} validation slices, {len(trained.members)} members")
    print("| slices | as they are | each member another | all four each |")
    print("|---|---|---|---|")
    for family, level in LEVELS:
        series = change(family, level, slices, seed=0)
        without = count(plain.predictor(), series)
        cells = [f"{iou(without):.4f}"]
        for predictor in (mirrored.predictor(), plain.predictor(flips=True)):
            counts = count(predictor, series)
            low, high = gain(counts, without)
            cells.append(f"{iou(counts):.4f} ({low:+.4f} to {high:+.4f})")
        name = family if family == level else f"{family}, {level}"
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
