"""How far the train step is from the limit set by memory bandwidth.

    python benchmarks/bandwidth.py                                   # inception, 8 x 256
    python benchmarks/bandwidth.py --size=512 --batch=32 --dtype=bfloat16   # on a GPU

With few channels, a U-Net does little arithmetic per byte. Prints the bandwidth of a plain
copy, the bytes that the compiled step moves (XLA's own count, each operand of each fused
loop once), the time they would take at that bandwidth, and the actual time of the step.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import median_seconds

from lungseg_jax.models import make_model
from lungseg_jax.runtime import huge_pages
from lungseg_jax.training.losses import bce_dice
from lungseg_jax.training.state import make_init_fn
from lungseg_jax.training.steps import make_train_steps

COPIED = 2**28  # bytes, larger than any cache


def copy_bandwidth(rounds: int) -> float:
    """Measure the bytes read and written per second."""
    x = jnp.zeros(COPIED // 4, jnp.float32)
    # Donated and written in place, as a step reuses its buffers.
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    box = [x]

    def call():
        box[0] = add(box[0]).block_until_ready()

    return 2 * COPIED / median_seconds(call, rounds)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("conv", "inception"), default="inception")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    shape = (args.batch, args.size, args.size)
    rng = np.random.default_rng(0)
    images = jax.device_put(rng.random((*shape, 1), np.float32))
    masks = jax.device_put(rng.random(shape, np.float32))
    indices = jax.device_put(np.arange(args.batch)[None])
    model = make_model(args.model, dtype=args.dtype)
    state = make_init_fn(model, optax.adamw(1e-3), channels=1, seed=0)()
    step = make_train_steps(loss=bce_dice, augmentation={}, seed=0)
    compiled = step.lower(state, images, masks, indices, 1).compile()
    moved = compiled.cost_analysis()["bytes accessed"]
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    box = [state]

    def call():
        box[0], metrics = compiled(box[0], images, masks, indices, 1)
        metrics["loss"].block_until_ready()

    seconds = median_seconds(call, args.rounds)
    bandwidth = copy_bandwidth(args.rounds)
    print(f"{args.model}, {args.batch} x {args.size} x {args.size}, {args.dtype}")
    print(f"  on {jax.devices()[0]}")
    print(f"  copy bandwidth  {bandwidth / 1e9:8.1f} GB/s")
    print(
        f"  bytes moved     {moved / 1e9:8.2f} GB, temporaries {temporaries / 1e9:.2f}"
    )
    print(f"  at bandwidth    {1e3 * moved / bandwidth:8.0f} ms")
    print(
        f"  the step        {1e3 * seconds:8.0f} ms, {args.batch / seconds:.1f} images/s"
    )


if __name__ == "__main__":
    huge_pages.restart_with_huge_pages()
    main()
