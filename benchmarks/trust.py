"""Whether `review` finds bad masks, on slices like the training's and on others.

    python benchmarks/trust.py DATA RUN [RUN ...]
    python benchmarks/trust.py DATA --every RUN     # trained on other data

DATA holds 2d_images/ and 2d_masks/. Each run answers for the slices of its own test split
(with --every for all of DATA), as they are and changed: noisier, blurred, of a scanner that
is off, turned, small, and with a lung that is partly or all consolidated: filled with soft
tissue, but still lung. Printed are, of each change, the mean IoU of the masks, how many
slices lie below 0.95, how many are flagged for review, and how many of the former are among
the latter; then the AUROC of finding those below 0.95, with its 95 % bootstrap interval
over slices.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from lungseg_jax.data.pairs import find_pairs, read_slice
from lungseg_jax.evaluation.tuning import LOW_IOU
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.segmenter import load
from lungseg_jax.metrics import overlap, uncertainty

Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple]
TISSUE_HU, TISSUE_NOISE_HU = 30, 25


def noise(hu: float) -> Change:
    return lambda image, mask, rng: (image + rng.normal(0, hu, image.shape), mask)


def blur(pixels: float) -> Change:
    return lambda image, mask, rng: (cv2.GaussianBlur(image, (0, 0), pixels), mask)


def offset(hu: float) -> Change:
    return lambda image, mask, rng: (image + hu, mask)


def turned(image, mask, rng):
    return np.rot90(image), np.rot90(mask)


def half_the_size(image, mask, rng):
    h, w = mask.shape
    about_the_middle = np.array([[0.5, 0, w / 4], [0, 0.5, h / 4]])

    def smaller(array, outside):
        flags = cv2.INTER_LINEAR  # of blurred pixels, so that none is left out
        soft = cv2.GaussianBlur(array, (0, 0), 1.0)
        return cv2.warpAffine(
            soft, about_the_middle, (w, h), flags=flags, borderValue=outside
        )

    return smaller(image, -1000.0), smaller(mask.astype(np.float32), 0.0) > 0.5


def consolidated(share: float) -> Change:
    """The lower `share` of the larger lung, by its height."""

    def change(image, mask, rng):
        labels, stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[1:3]
        largest = labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
        rows = np.nonzero(largest.any(axis=1))[0]
        first = rows[0] + (1 - share) * (rows[-1] - rows[0])
        filled = largest & (np.arange(len(mask))[:, None] >= first)
        weight = cv2.GaussianBlur(filled.astype(np.float32), (0, 0), 2)
        tissue = TISSUE_HU + rng.normal(0, TISSUE_NOISE_HU, image.shape)
        return image * (1 - weight) + tissue * weight, mask

    return change


AS_IT_IS, DISEASE = "as it is", "consolidated"
CHANGES: dict[str, Change] = {
    AS_IT_IS: lambda image, mask, rng: (image, mask),
    "noise of 100 HU": noise(100),
    "noise of 300 HU": noise(300),
    "noise of 600 HU": noise(600),
    "blurred, 3 pixels": blur(3),
    "blurred, 6 pixels": blur(6),
    "values + 150 HU": offset(150),
    "values - 150 HU": offset(-150),
    "turned by 90 degrees": turned,
    "half the size": half_the_size,
    "consolidated, 30 %": consolidated(0.3),
    "consolidated, 60 %": consolidated(0.6),
    "consolidated, whole": consolidated(1.0),
}
GROUPS = {
    "slices as they are": [AS_IT_IS],
    "other images": [c for c in CHANGES if c != AS_IT_IS and DISEASE not in c],
    DISEASE: [c for c in CHANGES if c == AS_IT_IS or DISEASE in c],
}


def answers(data: Path, run: Path, change: Change, *, every: bool) -> Iterator[dict]:
    """What is known of each slice of a run: its IoU, and what was said without it."""
    pairs = {pair.name: pair for pair in find_pairs(data)}
    split = json.loads((run / "run.json").read_text())["split"]
    names = list(pairs) if every else split["test"]
    rng = np.random.default_rng(0)
    segmenter = load(run)

    def changed():
        for name in names:
            one = read_slice(pairs[name])
            image, mask = change(one.image.astype(np.float32), one.mask > 0, rng)
            yield np.ascontiguousarray(image, np.float32), np.ascontiguousarray(mask)

    asked = zip_with_predictions(
        segmenter.stream, changed(), image_of=lambda one: one[0]
    )
    for (_, truth), found in asked:
        yield {
            "iou": float(overlap.iou(overlap.count_pixels(found.mask, truth))),
            "expected": found.expected_iou,
            "disagreement": found.disagreement,
            "review": bool(found.review),
        }


def interval(score: np.ndarray, low: np.ndarray) -> str:
    """AUROC, and its percentile bootstrap over slices."""
    found = uncertainty.auroc(score, low)
    if found is None:
        return "not defined"
    rng = np.random.default_rng(0)
    draws = rng.integers(len(low), size=(2000, len(low)))
    drawn = [uncertainty.auroc(score[d], low[d]) for d in draws]
    ends = np.percentile([a for a in drawn if a is not None], [2.5, 97.5])
    return f"{found:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--every", action="store_true", help="all slices of DATA")
    parser.add_argument("--only", default="", help="changes that start with this")
    args = parser.parse_args()
    head = "n", "mean IoU", "expected", f"< {LOW_IOU:g}", "flagged", "of these"
    print(f"{'':22}" + "".join(f"{word:>10}" for word in head))
    rows: dict[str, list[dict]] = {}
    for name, change in CHANGES.items():
        if not name.startswith(args.only):
            continue
        rows[name] = [
            row
            for run in args.runs
            for row in answers(args.data, run, change, every=args.every)
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
        some = [row for name in names for row in rows.get(name, ())]
        if some:
            low = np.array([row["iou"] < LOW_IOU for row in some])
            expected = -np.array([row["expected"] for row in some])
            other = np.array([row["disagreement"] for row in some])
            print(
                f"{group}: AUROC of expected IoU {interval(expected, low)}, of "
                f"disagreement {interval(other, low)}; {low.sum()} of {len(low)} below"
            )


if __name__ == "__main__":
    main()
