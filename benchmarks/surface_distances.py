"""Time and memory of the surface distances of two masks of a chest.

    python benchmarks/surface_distances.py
    python benchmarks/surface_distances.py --size=300,512,512 --corners

The masks are two ellipsoids in the place of lungs, and the same shifted by two slices, with
holes. With --corners they also hold two opposite corners of the volume, so that the box
around them is all of it. Memory is the largest resident size of the process (Linux).
"""

import argparse
import resource
import time

import numpy as np

from lungseg_jax.metrics.surface_distance import surface_scores

SPACING = (1.25, 0.7, 0.7)  # mm


def draw_lungs(size: tuple[int, ...], shift: int) -> np.ndarray:
    """Two ellipsoids side by side, `[d h w]` boolean."""
    depth, height, width = size
    z, y, x = np.ogrid[:depth, :height, :width]
    z = (z - depth / 2 - shift) / (0.46 * depth)
    y = (y - height / 2) / (0.27 * height)
    return np.logical_or(
        *(
            z**2 + y**2 + ((x - side * width) / (0.17 * width)) ** 2 < 1
            for side in (0.31, 0.69)
        )
    )


def gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="300,512,512", help="slices, rows, columns")
    parser.add_argument("--corners", action="store_true", help="fill the volume")
    args = parser.parse_args()
    size = tuple(map(int, args.size.split(",")))
    truth, predicted = draw_lungs(size, 0), draw_lungs(size, 2)
    holes = np.random.default_rng(0).integers(0, predicted.size, predicted.size // 1000)
    predicted.ravel()[holes] = False
    if args.corners:
        truth[0, 0, 0] = truth[-1, -1, -1] = True
    before, start = gigabytes(), time.perf_counter()
    scores = surface_scores(predicted, truth, spacing=SPACING, tolerance=2.0)
    print(", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    print(
        f"{time.perf_counter() - start:.1f} s; at most {gigabytes():.2f} GiB, "
        f"{before:.2f} before"
    )


if __name__ == "__main__":
    main()
