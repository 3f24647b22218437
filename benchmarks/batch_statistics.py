"""Which batch statistics hold on other scanners: those of the training or of the series.

    python benchmarks/batch_statistics.py RUN --data=DIR
    python benchmarks/batch_statistics.py RUN --data=DIR --slices=24

DIR holds 2d_images/ and 2d_masks/. Scores the weights of a run that was trained on DIR with
several batch statistics, on its validation split, unchanged and as other scanners would
show it (families of `benchmarks/stress/`): the pooled IoU at the slices' own size, with a
threshold of 0.5 and without clean-up; where no lung is shown, the share of pixels that are
called lung. The statistics are

    running     as they were accumulated in the training
    training    re-estimated over the training slices, as they are
    augmented   re-estimated over the training slices, augmented
    series      re-estimated over the slices at hand
    mixed       the mean of running and series, of the first and second moments
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from robustness import UNCHANGED, change, held_out, thin_out
from stress.families import FAMILIES

from lungseg_jax.data.augmentation.transforms import augment
from lungseg_jax.data.pairs import find_pairs, read_slice
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.metrics import overlap
from lungseg_jax.models import make_model
from lungseg_jax.training.batch_stats import make_precise_batch_stats
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder

LEVELS = (
    (UNCHANGED, UNCHANGED),
    ("in-lung density", -900),
    ("pixel size", 3),
    ("small chest", 0.5),
    ("crop to one lung", 20),
    ("blur", 1.5),
    ("noise", 100),
    ("foreign scanner", 2),
    ("consolidation", 0.6),
    ("without lung", "organs"),
    ("without lung", "bowel gas"),
)
BATCH = 8


def mixed(one, other):
    """Return the statistics of two equally large populations together."""

    def mix(a, b):
        mean = (a["mean"] + b["mean"]) / 2
        second = (a["var"] + a["mean"] ** 2 + b["var"] + b["mean"] ** 2) / 2
        return {"mean": mean, "var": second - mean**2}

    if "mean" in one:
        return mix(one, other)
    return {name: mixed(one[name], other[name]) for name in one}


def augmented(images, masks, knobs) -> np.ndarray:
    """Return training slices `[n s s 1]` as an epoch shows them."""
    change_batch = jax.jit(lambda i, m, key: augment(i, m, key, **knobs)[0])
    parts = []
    for n in range(len(images) // BATCH):
        part = np.s_[n * BATCH : (n + 1) * BATCH]
        batch = jnp.float32(images[part]), jnp.float32(masks[part])
        parts.append(np.asarray(change_batch(*batch, jax.random.key(n))))
    return np.concatenate(parts)


def in_batches(n: int) -> np.ndarray:
    """Return indices of all slices in batches; the last slices are repeated."""
    return np.resize(np.arange(n), (-(-n // BATCH), BATCH))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=12, help="at most, evenly spaced")
    args = parser.parse_args()
    run = Run.open(RunFolder(args.run))
    trained = load_run(run)
    preprocessing = trained.preprocessing
    estimate = make_precise_batch_stats(
        make_model(**trained.model), normalize=preprocessing.to_unit
    )

    def with_statistics(of):
        """Return the ensemble with the statistics `of(variables)` of each member."""
        members = {n: v | {"batch_stats": of(v)} for n, v in trained.members.items()}
        return dataclasses.replace(trained, members=members)

    def over(images):
        images = jnp.float32(images)
        return lambda v: estimate(v, images, in_batches(len(images)))

    pairs = {pair.name: pair for pair in find_pairs(args.data)}
    training = [read_slice(pairs[name]) for name in run.record["split"]["train"]]
    images = np.stack([preprocessing.image(s.image) for s in training])
    masks = np.stack([preprocessing.mask(s.mask, soft=True) for s in training])
    knobs = run.config.augment.to_dict()
    ensembles = {
        "running": trained,
        "training": with_statistics(over(images)),
        "augmented": with_statistics(over(augmented(images, masks, knobs))),
    }
    kept, _ = held_out(list(pairs.values()), {"run": args.run}, "validation")
    slices = [read_slice(pair) for pair in thin_out(kept, args.slices)]
    print(f"{len(slices)} validation slices")
    print(" " * 24 + "".join(f"{n:>10}" for n in (*ensembles, "series", "mixed")))
    for family, level in LEVELS:
        series = change(family, level, slices, seed=0)
        at_hand = over([preprocessing.image(image) for image in series.images])
        ensembles["series"] = with_statistics(at_hand)
        ensembles["mixed"] = with_statistics(
            lambda v, at_hand=at_hand: mixed(v["batch_stats"], at_hand(v))
        )
        scores = []
        for ensemble in ensembles.values():
            slices = [(image, 1.0) for image in series.images]
            predicted = ensemble.predictor().probabilities(slices)
            predicted = [p.mean(0) > 0.5 for p in predicted]
            if family in FAMILIES and not FAMILIES[family].has_lung:
                scores.append(np.mean([mask.mean() for mask in predicted]))
                continue
            rows = map(overlap.count_pixels, predicted, series.masks)
            summary = overlap.summarize(np.stack(list(rows)), resamples=0)
            scores.append(summary["iou_pooled"])
        label = family if family == level else f"{family} {level}"
        print(f"{label:24}" + "".join(f"{x:10.4f}" for x in scores), flush=True)


if __name__ == "__main__":
    main()
