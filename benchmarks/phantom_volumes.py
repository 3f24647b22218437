"""Masks of phantom patients: what cleaning in three dimensions buys, and what is flagged.

    python benchmarks/phantom_volumes.py
    python benchmarks/phantom_volumes.py --run=RUN --patients=40 --slices=64

Without --run, the weights of the package. Patients are whole, from neck to abdomen, drawn
from other seeds than any that the weights were trained on. Each is scored as drawn, and
with its larger lung filled with tissue (still lung, and as a real consolidation may be,
without a sign in the rest of the slice). Prints for each: pooled IoU of the masks slice by
slice and after the cleaning, the error of the volume, lung found above and below the lungs;
what the patients with the largest errors have beside their lungs; then how many slices with
an IoU below 0.95 are flagged, and how many others, by the expected IoU, by the anatomy
(neighbors, sides), and by either.
"""

import argparse

import numpy as np
from stress import anatomy
from stress.pathology import TISSUE_HU, TISSUE_NOISE_HU

from lungseg_jax.data.phantom import pleura
from lungseg_jax.data.phantom.patient import draw_patient
from lungseg_jax.data.phantom.volume import make_volume
from lungseg_jax.evaluation.tuning import LOW_IOU
from lungseg_jax.inference import review
from lungseg_jax.inference.ensemble.location import PRETRAINED
from lungseg_jax.inference.segmenter import LungSegmenter, load
from lungseg_jax.inference.sides import LEFT, RIGHT, label_sides
from lungseg_jax.inference.volume_cleanup import clean_volume, mark_air

FIRST_SEED = 7000
SIZE = 256
SHOWN = 4  # patients whose errors are named


def fill_a_lung(image: np.ndarray, truth: np.ndarray, seed: int) -> np.ndarray:
    """Fill the larger lung of a volume with tissue."""
    sides = label_sides(truth.astype(np.uint8))
    larger = max((RIGHT, LEFT), key=lambda side: np.count_nonzero(sides == side))
    rng = np.random.default_rng(seed)
    soft = TISSUE_HU + rng.normal(0, TISSUE_NOISE_HU, image.shape)
    filled = [
        anatomy.blend(slice_.astype(np.float32), tissue, anatomy.soften(side, 1))
        for slice_, tissue, side in zip(image, soft, sides == larger, strict=True)
    ]
    return np.rint(filled).astype(np.int16)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 1.0


def score(
    segmenter: LungSegmenter, image: np.ndarray, truth: np.ndarray, voxel_ml: float
) -> dict:
    """Segment a volume as `lungseg predict` does, and compare it with the truth."""
    segmentations = list(segmenter.stream(image))
    by_slice = np.stack([s.mask for s in segmentations])
    cleaned = np.stack([mark_air(i, m) for i, m in zip(image, by_slice, strict=True)])
    clean_volume(cleaned, has_air=True)
    sides, mask = label_sides(cleaned), cleaned.astype(bool)
    empty = ~truth.any(axis=(1, 2))
    return {
        "counts": [
            [np.count_nonzero(m & truth), np.count_nonzero(m | truth)]
            for m in (by_slice, mask)
        ],
        "error": [m.sum() / truth.sum() - 1 for m in (by_slice, mask)],
        "false_ml": [m[empty].sum() * voxel_ml for m in (by_slice, mask)],
        "low": np.array([iou(m, t) < LOW_IOU for m, t in zip(mask, truth)]),
        "uncertain": np.array([bool(s.review) for s in segmentations]),
        "neighbors": review.unlike_neighbors(cleaned),
        "sides": review.sides_differ(sides),
    }


def report(name: str, scores: list[dict], findings: list[str]) -> None:
    pooled = np.sum([s["counts"] for s in scores], axis=0)
    errors = np.abs([s["error"] for s in scores])
    false = np.array([s["false_ml"] for s in scores])
    print(f"\n{name}")
    print(
        f"| {'masks':16} | IoU | volume error, median | largest | false ml, largest |"
    )
    print("| --- | --- | --- | --- | --- |")
    for i, way in enumerate(("slice by slice", "cleaned")):
        print(
            f"| {way:16} | {pooled[i, 0] / pooled[i, 1]:.4f} "
            f"| {np.median(errors[:, i]):.1%} | {errors[:, i].max():.1%} "
            f"| {false[:, i].max():.1f} |"
        )
    worst = np.argsort(-errors[:, 1])[:SHOWN]
    shown = (f"{findings[i]} {scores[i]['error'][1]:+.1%}" for i in worst)
    print(f"\nThe largest errors: {', '.join(shown)}")
    low, *flags = (
        np.concatenate([s[key] for s in scores])
        for key in ("low", "uncertain", "neighbors", "sides")
    )
    flags.append(np.any(flags, axis=0))
    names = ("expected IoU", "neighbors", "sides", "any")
    print(
        f"\n| flagged by | of {low.sum()} below {LOW_IOU} | of {(~low).sum()} others |"
    )
    print("| --- | --- | --- |")
    for flag, values in zip(names, flags, strict=True):
        print(f"| {flag} | {(values & low).sum()} | {(values & ~low).sum()} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default=PRETRAINED, help="a finished run, or a bundle")
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--slices", type=int, default=48)
    args = parser.parse_args()
    segmenter = load(args.run)
    whole, filled, findings = [], [], []
    for seed in range(FIRST_SEED, FIRST_SEED + args.patients):
        image, mask, spacing = make_volume(seed, slices=args.slices, size=SIZE)
        truth, voxel_ml = mask > 0, float(np.prod(spacing)) / 1000
        findings.append(pleura.draw(draw_patient((seed, 0, 1))).finding or "nothing")
        whole.append(score(segmenter, image, truth, voxel_ml))
        image = fill_a_lung(image, truth, seed)
        filled.append(score(segmenter, image, truth, voxel_ml))
    report(f"{args.patients} patients as drawn", whole, findings)
    report(f"{args.patients} patients, the larger lung filled", filled, findings)


if __name__ == "__main__":
    main()
