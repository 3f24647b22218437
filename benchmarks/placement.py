"""Steps per second and memory of slices that are streamed, against resident ones.

    python benchmarks/placement.py                      # 1,000 slices, in four turns
    python benchmarks/placement.py --slices=50000 --turns=streamed
    python benchmarks/placement.py --size=512 --batch=16 --dtype=bfloat16  # on a GPU

All turns are in one process and take the same steps. More slices than `--files` are the
same files again under other numbers: the order, the indices and the memory are those of so
many slices, but the system has so few files in memory after the first turn.

The CPU time of a step, over all threads, is printed beside its seconds, which say little on
a machine that other work shares.
"""

import argparse
import dataclasses
import functools
import resource
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.data.network_slices import NetworkSlices
from lungseg_jax.data.sampling import batch_indices
from lungseg_jax.runtime import cache, compilation, device_mesh, huge_pages
from lungseg_jax.training.config import check_config, default_config, preprocessing_of
from lungseg_jax.training.feeds import make_feed
from lungseg_jax.training.placement import PLACEMENTS
from lungseg_jax.training.programs import init_of, train_steps_of

WARM_UP = 3  # steps that are not timed: the first one compiles


@dataclasses.dataclass
class Turn:
    """What was measured of a turn: medians over its steps, and memory after it."""

    seconds: float
    cpu_seconds: float
    device_bytes: int
    resident_bytes: int


def config_of(args):
    c = default_config()
    c.model.name, c.model.dtype = args.model, args.dtype
    c.data.image_size, c.train.batch_size = args.size, args.batch
    c.train.total_steps, c.schedule.cycles = WARM_UP + args.steps, 1
    check_config(c)
    return c


def take_turn(c, placement: str, slices: NetworkSlices) -> Turn:
    """Train from scratch with one placement."""
    mesh = device_mesh.make_mesh(device_mesh.devices_for(c.train.batch_size))
    total = c.train.total_steps
    batch = functools.partial(
        batch_indices, n=len(slices), batch_size=c.train.batch_size, seed=c.seed
    )
    feed = make_feed(
        placement, slices, batch, mesh, steps_per_dispatch=1, total_steps=total
    )
    steps = train_steps_of(c, mesh, gather=feed.gather)
    state, times = init_of(c, mesh)(), []
    for step in range(total):
        started = time.perf_counter(), time.process_time()
        state, metrics = steps(state, *feed.take(step, 1), np.int32(1))
        if step + 1 < total:
            feed.prepare(step + 1, 1, metrics)
        jax.block_until_ready(metrics)
        times.append(
            (time.perf_counter() - started[0], time.process_time() - started[1])
        )
    arrays = feed.images, feed.masks  # for a stream, the shapes of one dispatch
    held = sum(a.size * a.dtype.itemsize for a in arrays)
    feed.close()
    seconds, cpu = (
        statistics.median(column) for column in zip(*times[WARM_UP:], strict=True)
    )
    return Turn(seconds, cpu, held, resident_bytes())


def resident_bytes() -> int:
    """Return the memory of this process; where it is not known, the most it ever was."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a data folder, instead of phantoms")
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--files", type=int, default=240, help="phantoms to draw")
    parser.add_argument("--model", choices=("conv", "inception"), default="inception")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=20, help="that are timed, a turn")
    parser.add_argument("--turns", default="copied,streamed,copied,streamed")
    args = parser.parse_args()
    unknown = {*args.turns.split(",")} - PLACEMENTS.keys()
    if unknown:
        parser.error(
            f"--turns: {', '.join(unknown)} is none of {', '.join(PLACEMENTS)}"
        )
    root = cache.cache_root()
    compilation.enable_compilation_cache(root)
    c = config_of(args)
    dataset = load_dataset(args.data, cache=root, phantom_slices=args.files)
    names = [dataset.names[i % len(dataset.names)] for i in range(args.slices)]
    slices = NetworkSlices(
        [(dataset, names)],
        preprocessing=preprocessing_of(c),
        soft_masks=c.data.soft_masks,
    )
    print(
        f"{args.model}, {args.batch} x {args.size} x {args.size}, {args.dtype}; "
        f"{args.slices} slices of {slices.slice_bytes / 1e6:.3g} MB, "
        f"on {jax.device_count()} {jax.default_backend()}"
    )
    for placement in args.turns.split(","):
        turn = take_turn(c, placement, slices)
        print(
            f"  {placement:9} {1 / turn.seconds:7.3f} steps/s  "
            f"{turn.cpu_seconds:6.3f} s of CPU a step  "
            f"slices on devices {turn.device_bytes / 1e6:7.1f} MB  "
            f"process {turn.resident_bytes / 1e6:6.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    huge_pages.restart_with_huge_pages()
    main()
