"""The score of our recipe, and that of MONAI's residual U-Net after a given time.

    pip install -e ".[bench]" monai
    python benchmarks/time_to_quality.py DATA                 # 15 minutes on two cores
    python benchmarks/time_to_quality.py DATA --only=monai --seconds=480

DATA holds 2d_images/ and 2d_masks/. Both train from scratch on the same slices: ours is
the variant :scratch of the recipe, without its phantoms. Both are scored on the same test
slices of the recipe's split, at the slices' own size, with threshold 0.5. Ours is one
command, timed from its start to its report, with an empty cache; for MONAI, only the
training is timed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.data.packed_masks import unpack_masks
from lungseg_jax.data.preprocessing import to_slice
from lungseg_jax.data.splits import split_names
from lungseg_jax.metrics import overlap
from lungseg_jax.training.config import default_config, preprocessing_of
from lungseg_jax.training.run_data import network_slices

CHECKOUT = Path(__file__).resolve().parent.parent


def ours(args) -> dict:
    """Train our recipe on DATA only and return its scores."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "lungseg_jax.main",
            f"--config={CHECKOUT / args.config}",
            f"--config.data.dir={args.data.absolute()}",
            "--config.data.extra_phantoms=0",
            "--config.data.leave_out_air=False",  # the same slices as MONAI's
            f"--config.seed={args.seed}",
            f"--config.cache_dir={scratch}/cache",
            f"--workdir={scratch}/run",
        ]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        evaluation = json.loads(Path(scratch, "run", "evaluation.json").read_text())
    return {
        "label": f"ours, {args.config}",
        "seconds": seconds,
        **evaluation["ensemble"],
    }


def monai(args) -> dict:
    """Train MONAI's network for `args.seconds` and return its scores."""
    from contestants import monai_unet

    c = default_config()
    c.data.preprocessing = "window"
    with tempfile.TemporaryDirectory() as scratch:
        dataset = load_dataset(args.data, cache=Path(scratch))
        split = split_names(
            dataset.names,
            validation_fraction=c.data.validation_fraction,
            test_fraction=c.data.test_fraction,
            seed=c.data.split_seed,
        )
        arrays = network_slices(c, dataset, split["train"]).stack()
        test = list(dataset.slices(split["test"]))
    predict, steps = monai_unet.train(
        arrays["image"],
        unpack_masks(arrays["mask"]),
        seconds=args.seconds,
        batch_size=c.train.batch_size,
        seed=args.seed,
        augmentation={name: c.augment[name] for name in monai_unet.AUGMENTATION},
    )
    rows = []
    for image_slice in test:
        image = image_slice.image
        square = predict(preprocessing_of(c).image(image)[None])[0]
        mask = to_slice(square, image.shape) > c.evaluate.threshold
        rows.append(overlap.count_pixels(mask, image_slice.mask > 0))
    label = f"{monai_unet.LABEL}, {steps} steps"
    return {
        "label": label,
        "seconds": args.seconds,
        **overlap.summarize(np.stack(rows)),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", default="configs/incp_snapshot.py:scratch")
    parser.add_argument(
        "--seconds", type=float, default=480, help="of MONAI's training"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("ours", "monai"))
    parser.add_argument("--json", default="", help="file for the figures")
    args = parser.parse_args()
    results = [
        contestant(args)
        for contestant in (ours, monai)
        if args.only in (None, contestant.__name__)
    ]
    for r in results:
        low, high = r["iou_pooled_ci95"]
        print(
            f"{r['label']:50} {r['seconds']:4.0f} s  iou_pooled {r['iou_pooled']:.4f} "
            f"[{low:.4f}, {high:.4f}]  mean {r['iou_mean']:.4f}  min {r['iou_min']:.4f}"
        )
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
