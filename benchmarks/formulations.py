"""What the fast forms of the layers and of the ensemble buy, timed in turn.

    python benchmarks/formulations.py                 # 8 x 128 x 128, about five minutes
    python benchmarks/formulations.py --size 256

Prints medians and ratios: the train step of the inception U-Net with our pools and 1x1
convolutions against `nn.max_pool` and XLA's convolution; an ensemble of three by
`lax.map` against `vmap`.
"""

import argparse
import statistics
import time
from unittest import mock

import flax.linen as nn
import jax
import numpy as np
import optax

from lungseg_jax.ensemble import stack
from lungseg_jax.losses import bce_dice
from lungseg_jax.models import blocks, make_model, unet
from lungseg_jax.steps import make_ensemble_predict, make_train_step
from lungseg_jax.train_state import create_state, init_variables


def plain_pool(x):
    return nn.max_pool(x, (2, 2), (2, 2))


def plain_pool_same(x):
    return nn.max_pool(x, (2, 2), (1, 1), padding="SAME")


class PlainConv(blocks.Conv):
    """`Conv` without its case for 1x1 kernels."""

    @nn.compact
    def __call__(self, x):
        k, out = self.kernel_size, self.features
        init = blocks.glorot_by_branch(self.branches)
        kernel = self.param("kernel", init, (k, k, x.shape[-1], out))
        bias = self.param("bias", nn.initializers.zeros, (out,))
        return bias + jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


def train_step(images, masks, **plain):
    """A call that carries out one update; `plain` replaces forms while it is traced."""
    indices = np.arange(len(images))
    step = make_train_step(loss=bce_dice, augmentation={}, seed=0)
    box = [create_state(make_model("inception"), optax.adam(1e-3), channels=1, seed=0)]

    def call():
        box[0], metrics = step(box[0], images, masks, indices)
        metrics["loss"].block_until_ready()

    if "pools" in plain:
        with (
            mock.patch.object(unet, "max_pool", plain_pool),
            mock.patch.object(blocks, "max_pool_same", plain_pool_same),
        ):
            call()
    elif "convs" in plain:
        with (
            mock.patch.object(unet, "Conv", PlainConv),
            mock.patch.object(blocks, "Conv", PlainConv),
        ):
            call()
    else:
        call()
    return call


def ensemble(images, *, vectorize):
    model = make_model("inception")
    members = stack([init_variables(model, channels=1, seed=i) for i in range(3)])
    predict = make_ensemble_predict(model, vectorize=vectorize)

    def call():
        predict(members, images).block_until_ready()

    call()
    return call


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(args.batch, args.size, args.size, 1)).astype(np.float32)
    images = jax.device_put(images)
    masks = (images[..., 0] > 0).astype(np.float32)
    calls = {
        "step, as it is": train_step(images, masks),
        "step, nn.max_pool": train_step(images, masks, pools=True),
        "step, XLA 1x1": train_step(images, masks, convs=True),
        "ensemble, in turn": ensemble(images, vectorize=False),
        "ensemble, vmap": ensemble(images, vectorize=True),
    }
    times = {name: [] for name in calls}
    for _ in range(args.rounds):  # in turn, so that a noisy machine is noisy for all
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(t) for name, t in times.items()}
    print(f"{args.batch} x {args.size} x {args.size} on {jax.devices()}")
    for name, median in medians.items():
        base = medians[
            "step, as it is" if name.startswith("step") else "ensemble, in turn"
        ]
        print(f"{name:20} {1e3 * median:8.0f} ms   {median / base:5.2f}")


if __name__ == "__main__":
    main()
