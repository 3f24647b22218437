"""How the cost grows with the size of images, the batch, and the number of slices.

    python benchmarks/cost_by_size.py                           # everything
    python benchmarks/cost_by_size.py --sizes= --slices=1000    # only the preparation

Prints the milliseconds per slice of the train step and of an ensemble's prediction, and
the seconds it takes to check and pack a data folder. Where the cost is linear, the figures
per slice or per megapixel are equal down their column.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from contestants import ours
from timing import median_seconds

from lungseg_jax.data import dataset
from lungseg_jax.data.io.images import write_image
from lungseg_jax.runtime import huge_pages


def steps_and_predictions(args) -> None:
    rng = np.random.default_rng(0)
    print(f"\n{args.model} U-Net, float32, on {jax.devices()}")
    print("  size  batch   train step                 prediction of 3 members")
    print("                ms/slice  ms/megapixel     ms/slice  ms/megapixel")
    for size in args.sizes:
        for batch in args.batches:
            images = rng.normal(size=(batch, size, size, 1)).astype(np.float32)
            masks = (images[..., 0] > 0).astype(np.float32)
            cells = []
            for call in (
                ours.train_step(args.model, images, masks, "float32"),
                ours.predict(args.model, images, "float32", 3),
            ):
                seconds = median_seconds(ours.awaited(call), args.rounds) / batch
                cells += [1e3 * seconds, 1e9 * seconds / size**2]
            row = "{:10.1f}{:14.0f}   {:10.1f}{:14.0f}".format(*cells)
            print(f"{size:6}{batch:7}  {row}", flush=True)
            jax.clear_caches()


def preparation(args) -> None:
    rng = np.random.default_rng(0)
    print("\npreparation: 512 x 512 int16, checked and packed")
    print("  slices   first use  ms/slice     prepared before  ms/slice")
    for n in args.slices:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "data")
            for name in ("2d_images", "2d_masks"):
                (folder / name).mkdir(parents=True)
            image = rng.integers(-1000, 400, (512, 512)).astype(np.int16)
            mask = (image > 0).astype(np.uint8) * np.uint8(255)
            for i in range(n):
                image[0, 0] = i  # makes every file different
                write_image(folder / "2d_images" / f"{i:05}.tif", image)
                write_image(folder / "2d_masks" / f"{i:05}.tif", mask)
            seconds = []
            for _ in ("first use", "prepared before"):
                start = time.perf_counter()
                dataset.load_dataset(folder, cache=Path(scratch))
                seconds.append(time.perf_counter() - start)
        first, again = seconds
        print(
            f"{n:8}{first:10.1f} s{1e3 * first / n:10.2f}"
            f"{again:18.1f} s{1e3 * again / n:10.2f}",
            flush=True,
        )


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("conv", "inception"), default="inception")
    parser.add_argument("--sizes", type=numbers, default="128,256,512")
    parser.add_argument("--batches", type=numbers, default="1,4,16")
    parser.add_argument("--slices", type=numbers, default="100,1000,5000")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.sizes:
        steps_and_predictions(args)
    if args.slices:
        preparation(args)


if __name__ == "__main__":
    huge_pages.restart_with_huge_pages()
    main()
