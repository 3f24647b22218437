"""The time that varied training slices take: the step with all augmentation and without.

    python benchmarks/variety.py
    python benchmarks/variety.py --size=128 --rounds=15

Both steps are those of the default configuration on the same phantoms, in one process,
alternately. Prints the first call with its compilation, and medians of the time and of the
CPU time of a step. Noise of the machine affects the CPU time less.
"""

import argparse
import statistics
import time

import jax
import numpy as np

from lungseg_jax.data.phantom.dataset import make_phantom
from lungseg_jax.runtime import device_mesh
from lungseg_jax.training.config import default_config, preprocessing_of
from lungseg_jax.training.programs import init_of, train_steps_of
from lungseg_jax.training.recipes import without_variety

STEPS = 8  # of a round


class Contestant:
    """A training step and its state."""

    def __init__(self, c, images, masks):
        mesh = device_mesh.make_mesh(jax.devices()[:1])
        self.state, self.step = init_of(c, mesh)(), train_steps_of(c, mesh)
        self.arrays, self.batch, self.seconds = (images, masks), c.train.batch_size, []

    def round(self) -> None:
        """Take a few steps and note the time and the CPU time of one, in seconds."""
        start = time.perf_counter(), time.process_time()
        for step in range(STEPS):
            indices = (step * self.batch + np.arange(self.batch)) % len(self.arrays[0])
            self.state, metrics = self.step(self.state, *self.arrays, indices[None], 1)
        jax.block_until_ready(metrics)
        end = time.perf_counter(), time.process_time()
        self.seconds.append([(e - s) / STEPS for s, e in zip(start, end, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    c = default_config()
    c.data.image_size, c.train.batch_size = args.size, args.batch
    preprocessing, images, masks = preprocessing_of(c), [], []
    for index in range(args.slices):
        image, mask = make_phantom(seed=0, index=index)
        images.append(preprocessing.image(image))
        masks.append(preprocessing.mask(mask // 255, soft=True))
    arrays = jax.device_put((np.stack(images), np.stack(masks)))
    contestants = {
        "without": Contestant(
            without_variety(c.copy_and_resolve_references()), *arrays
        ),
        "with": Contestant(c, *arrays),
    }
    for name, contestant in contestants.items():
        start = time.perf_counter()
        contestant.round()
        print(f"{name:8} first {STEPS} steps {time.perf_counter() - start:6.1f} s")
        contestant.seconds.clear()
    for _ in range(args.rounds):
        for contestant in contestants.values():
            contestant.round()
    base = None
    for name, contestant in contestants.items():
        wall, cpu = map(statistics.median, zip(*contestant.seconds, strict=True))
        base = base or (wall, cpu)
        print(
            f"{name:8} {1e3 * wall:7.0f} ms ({wall / base[0]:.3f})  "
            f"CPU {1e3 * cpu:7.0f} ms ({cpu / base[1]:.3f})"
        )


if __name__ == "__main__":
    main()
