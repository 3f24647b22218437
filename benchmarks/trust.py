"""Whether `review` detects bad masks, on slices like the training data and on others.

    python benchmarks/trust.py DATA RUN [RUN ...]
    python benchmarks/trust.py DATA --every pretrained     # trained on other data

DATA holds 2d_images/ and 2d_masks/. Each run segments the slices of its own test split
(with --every, all slices of DATA), unchanged and changed: noisy, blurred, from a
miscalibrated scanner, rotated, small, and with one lung partly or completely consolidated,
that is, filled with soft tissue but still lung. For each change, prints the mean IoU of the
masks, the number of slices below 0.95, the number flagged for review, and the number of
slices that are both; then the AUROC of detecting those below 0.95, with a 95 % bootstrap
interval over slices.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from stress import acquisition, geometry, pathology

from lungseg_jax.data.pairs import find_pairs, read_slice
from lungseg_jax.evaluation.tuning import LOW_IOU
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.segmenter import load
from lungseg_jax.metrics import overlap, uncertainty

Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple]


def at(change: Callable, level: float | str) -> Change:
    """Fix the level of a change of `stress/`, or of one with its signature."""
    return lambda image, mask, rng: change(image, mask, level, rng)


def white_noise(image, mask, hu, rng):
    return image + rng.normal(0, hu, image.shape), mask


def blur(image, mask, pixels, rng):
    return cv2.GaussianBlur(image, (0, 0), pixels), mask


def shrink_to_half(image, mask, rng):
    h, w = mask.shape
    about_the_center = np.array([[0.5, 0, w / 4], [0, 0.5, h / 4]])

    def shrink(array, outside):
        flags = cv2.INTER_LINEAR  # skips pixels, hence the blur
        soft = cv2.GaussianBlur(array, (0, 0), 1.0)
        return cv2.warpAffine(
            soft, about_the_center, (w, h), flags=flags, borderValue=outside
        )

    return shrink(image, -1000.0), shrink(mask.astype(np.float32), 0.0) > 0.5


UNCHANGED, DISEASE = "unchanged", "consolidated"
CHANGES: dict[str, Change] = {
    UNCHANGED: lambda image, mask, rng: (image, mask),
    "noise of 100 HU": at(white_noise, 100),
    "noise of 300 HU": at(white_noise, 300),
    "noise of 600 HU": at(white_noise, 600),
    "blurred, 3 pixels": at(blur, 3),
    "blurred, 6 pixels": at(blur, 6),
    "values + 150 HU": at(acquisition.offset, 150),
    "values - 150 HU": at(acquisition.offset, -150),
    "rotated by 90 degrees": at(geometry.orientation, "turned by 90"),
    "half the size": shrink_to_half,
    "consolidated, 30 %": at(pathology.consolidation, 0.3),
    "consolidated, 60 %": at(pathology.consolidation, 0.6),
    "consolidated, all": at(pathology.consolidation, 1.0),
}
GROUPS = {
    "unchanged slices": [UNCHANGED],
    "other images": [c for c in CHANGES if c != UNCHANGED and DISEASE not in c],
    DISEASE: [c for c in CHANGES if c == UNCHANGED or DISEASE in c],
}


def test_split(run: Path) -> list[str]:
    return json.loads((run / "run.json").read_text())["split"]["test"]


def predictions(data: Path, run: str, change: Change, *, every: bool) -> Iterator[dict]:
    """Yield the IoU of each slice of a run, and its measures of doubt."""
    pairs = {pair.name: pair for pair in find_pairs(data)}
    names = list(pairs) if every else test_split(Path(run))
    rng = np.random.default_rng(0)
    segmenter = load(run)

    def changed():
        for name in names:
            original = read_slice(pairs[name])
            image = original.image.astype(np.float32)
            image, mask = change(image, original.mask > 0, rng)
            yield np.ascontiguousarray(image, np.float32), np.ascontiguousarray(mask)

    segmented = zip_with_predictions(
        segmenter.stream_slices,
        changed(),
        slice_of=lambda pair: (pair[0], 1.0),
    )
    for name, ((_, truth), segmentation) in zip(names, segmented, strict=True):
        iou = float(overlap.iou(overlap.count_pixels(segmentation.mask, truth)))
        yield {
            "slice": name,
            "iou": 1.0 if np.isnan(iou) else iou,  # both are empty
            "expected": segmentation.expected_iou,
            "disagreement": segmentation.disagreement,
            "review": bool(segmentation.review),
        }


def interval(score: np.ndarray, low: np.ndarray, slices: np.ndarray) -> str:
    """Format the AUROC with its percentile bootstrap interval over slices.

    Args:
      score, low: `[n]` of predictions.
      slices: `[n]` the slice of each: one is drawn with all of its changes.
    """
    auroc = uncertainty.auroc(score, low)
    if auroc is None:
        return "undefined"
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(slices == name) for name in np.unique(slices)]
    draws = rng.integers(len(rows), size=(2000, len(rows)))
    drawn_rows = (np.concatenate([rows[i] for i in draw]) for draw in draws)
    drawn = [uncertainty.auroc(score[d], low[d]) for d in drawn_rows]
    ends = np.percentile([a for a in drawn if a is not None], [2.5, 97.5])
    return f"{auroc:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--every", action="store_true", help="all slices of DATA")
    parser.add_argument("--only", default="", help="changes that start with this")
    args = parser.parse_args()
    head = "n", "mean IoU", "expected", f"< {LOW_IOU:g}", "flagged", "both"
    print(f"{'':22}" + "".join(f"{word:>10}" for word in head))
    rows: dict[str, list[dict]] = {}
    for name, change in CHANGES.items():
        if not name.startswith(args.only):
            continue
        rows[name] = [
            row
            for run in args.runs
            for row in predictions(args.data, run, change, every=args.every)
        ]
        iou, expected, review = (
            np.array([row[key] for row in rows[name]])
            for key in ("iou", "expected", "review")
        )
        low = iou < LOW_IOU
        print(
            f"{name:22}{len(iou):10}{iou.mean():10.3f}{expected.mean():10.3f}"
            f"{low.sum():10}{review.sum():10}{(review & low).sum():10}",
            flush=True,
        )
    for group, names in GROUPS.items():
        group_rows = [row for name in names for row in rows.get(name, ())]
        if group_rows:
            low = np.array([row["iou"] < LOW_IOU for row in group_rows])
            expected = -np.array([row["expected"] for row in group_rows])
            disagreement = np.array([row["disagreement"] for row in group_rows])
            slices = np.array([row["slice"] for row in group_rows])
            print(
                f"{group}: AUROC of expected IoU {interval(expected, low, slices)}, of "
                f"disagreement {interval(disagreement, low, slices)}; {low.sum()} of "
                f"{len(low)} below"
            )


if __name__ == "__main__":
    main()
