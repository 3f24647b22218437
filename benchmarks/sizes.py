"""Ways to scale the slices of a prediction: fixed sizes, several sizes, fixed mm per pixel.

    python benchmarks/sizes.py RUN --data=DIR
    python benchmarks/sizes.py RUN --data=DIR --scales=1,1.25,1.5,2 --slices=24

DIR holds 2d_images/ and 2d_masks/. Scores the validation split of a run that was trained on
DIR, unchanged and as other scanners would show it (families of `benchmarks/stress/`): the
pooled IoU at the slices' own size, threshold 0.5, without clean-up. The ways are

    x S       the longer side of a slice becomes S times the size of the training, in whole
              multiples of what the pools divide
    flips     the same at S = 1, averaged over mirror images, at four times the cost
    all       the mean over all S
    turns     each member at another S, in turn
    mm        at S = 1, but all slices have the mm per pixel of the training slices, with
              air around those that become smaller; "edge" repeats their border instead
"""

import argparse
import dataclasses
import functools
from pathlib import Path

import numpy as np
from robustness import UNCHANGED, change, held_out, thin_out
from stress.anatomy import pixel_mm

from lungseg_jax.data.pairs import find_pairs, read_slice
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.metrics import overlap
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder

LEVELS = (
    (UNCHANGED, (UNCHANGED,)),
    ("pixel size", (1, 3, 5)),
    ("small chest", (0.8, 0.65, 0.5, 0.35, 0.25)),
    ("crop to the chest", (20, 5)),
    ("crop to one lung", (40, 20, 5)),
)
AIR_HU = -1000


def predict(trained, size: int, images, *, flips: bool = False) -> list[np.ndarray]:
    """Return the members' probabilities `[m h w]` of each image, at a network size."""
    preprocessing = dataclasses.replace(trained.preprocessing, image_size=size)
    resized = dataclasses.replace(trained, preprocessing=preprocessing)
    slices = [(image, 1.0) for image in images]
    return list(resized.predictor(flips=flips).probabilities(slices))


def predict_at_scale(
    trained, size: int, stride: int, images, zooms, **padding
) -> list[np.ndarray]:
    """Do so with a scale of its own for each image, relative to the whole-slice fit.

    An image that fits into the square is padded. One that does not makes it larger.
    """
    probabilities = []
    for image, zoom in zip(images, zooms, strict=True):
        longer = max(image.shape)
        side = round(longer / zoom) if zoom < 1 else longer
        before = [(side - length) // 2 for length in image.shape]
        pads = [(b, side - n - b) for b, n in zip(before, image.shape, strict=True)]
        square = np.pad(image.astype(np.float32), pads, **padding)
        (top, left), (height, width) = before, image.shape
        pixels = size if zoom < 1 else round(size * zoom / stride) * stride
        (whole,) = predict(trained, pixels, [square])
        probabilities.append(whole[:, top : top + height, left : left + width])
    return probabilities


def zooms_to_training(family: str, level, images) -> list[float]:
    """Return the zoom that gives each image the mm per pixel of the training slices."""
    zooms = []
    for image in images:
        mm = pixel_mm((512, 512))
        if family == "pixel size":
            mm = level
        elif family == "small chest":
            mm = mm / level
        zooms.append(max(image.shape) * mm / (512 * pixel_mm((512, 512))))
    return zooms


def iou(probabilities, masks) -> float:
    """Return the pooled IoU of the mean over members."""
    rows = [
        overlap.count_pixels(p.mean(0) > 0.5, mask)
        for p, mask in zip(probabilities, masks, strict=True)
    ]
    return overlap.summarize(np.stack(rows), resamples=0)["iou_pooled"]


def score(trained, size: int, stride: int, scales, series, zooms) -> dict[str, float]:
    """Return the IoU of a series by the name of each way."""
    images, masks = series.images, series.masks
    sides = [round(size * scale / stride) * stride for scale in scales]
    each = {side: predict(trained, side, images) for side in sides}
    ways = {f"x {side / size:.3g}": p for side, p in each.items()}
    ways["flips"] = predict(trained, size, images, flips=True)
    ways["all"] = [np.concatenate(several) for several in zip(*each.values())]
    ways["turns"] = [
        np.stack([several[m % len(sides)][m] for m in range(len(several[0]))])
        for several in zip(*each.values())
    ]
    scaled = functools.partial(predict_at_scale, trained, size, stride, images, zooms)
    ways["mm"] = scaled(mode="constant", constant_values=AIR_HU)
    ways["mm, edge"] = scaled(mode="edge")
    return {name: iou(probabilities, masks) for name, probabilities in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scales", default="1,1.25,1.5")
    parser.add_argument("--slices", type=int, default=12, help="at most, evenly spaced")
    args = parser.parse_args()
    run = Run.open(RunFolder(args.run))
    trained, size = load_run(run), run.config.data.image_size
    stride, scales = 2**run.config.model.levels, [*map(float, args.scales.split(","))]
    pairs, _ = held_out(find_pairs(args.data), {"run": args.run}, "validation")
    slices = [read_slice(pair) for pair in thin_out(pairs, args.slices)]
    print(f"{len(slices)} validation slices, trained at {size} pixels")
    has_head = False
    for family, levels in LEVELS:
        for level in levels:
            series = change(family, level, slices, seed=0)
            zooms = zooms_to_training(family, level, series.images)
            scores = score(trained, size, stride, scales, series, zooms)
            if not has_head:
                print(" " * 24 + "".join(f"{name:>9}" for name in scores))
                has_head = True
            label = family if family == level else f"{family} {level:g}"
            print(f"{label:24}" + "".join(f"{x:9.4f}" for x in scores.values()))


if __name__ == "__main__":
    main()
