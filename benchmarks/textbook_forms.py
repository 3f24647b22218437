"""The speed of our operators and ensemble against other formulations.

    python benchmarks/textbook_forms.py                 # 8 x 128 x 128, about five minutes
    python benchmarks/textbook_forms.py --size 256

Prints medians and ratios of the train step with our operators, with textbook ones
(`nn.max_pool`, XLA's convolution of the concatenated input) and with the defaults of XLA's
CPU backend (convolutions by YNNPACK, padding fused into the stride-1 pool); and of an
ensemble of three, called sequentially and by `vmap`.
"""

import argparse
import contextlib
import statistics
import time
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lungseg_jax.inference.ensemble.predictor import make_predict
from lungseg_jax.models import MODELS, blocks, layouts, make_model, unet
from lungseg_jax.models.variables import init_variables
from lungseg_jax.runtime import compilation, huge_pages
from lungseg_jax.training.losses import bce_dice
from lungseg_jax.training.state import make_init_fn
from lungseg_jax.training.steps import make_train_steps


def textbook_conv2d(x, kernel):
    return jax.lax.conv_general_dilated(
        layouts.materialize(x),
        kernel.astype(jnp.float32),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def textbook_pool(x):
    return nn.max_pool(x, (2, 2), (2, 2))


def textbook_pool_same(x):
    return nn.max_pool(layouts.materialize(x), (2, 2), (1, 1), padding="SAME")


TEXTBOOK = {
    "pools": (
        (unet, "max_pool", textbook_pool),
        (blocks, "max_pool_same", textbook_pool_same),
    ),
    "convolutions": ((blocks, "conv2d", textbook_conv2d),),
}
XLA_DEFAULTS = {
    "YNNPACK": ((compilation, "_cpu_options", lambda: OPTIMIZATION_LEVEL),),
    "padding": ((jax.lax, "optimization_barrier", lambda x: x),),
}
OPTIMIZATION_LEVEL = {"xla_backend_optimization_level": 1}


def train_step(name, images, masks, forms):
    """Return a function that applies one update, compiled with the given `forms`."""
    indices = np.arange(len(images))[None]
    state = make_init_fn(make_model(name), optax.adam(1e-3), channels=1, seed=0)()
    jax.clear_caches()  # else the forms traced before would be used
    with contextlib.ExitStack() as stack:
        for form in forms:
            for patch in (TEXTBOOK | XLA_DEFAULTS)[form]:
                stack.enter_context(mock.patch.object(*patch))
        step = make_train_steps(loss=bce_dice, augmentation={}, seed=0)
        compiled = step.lower(state, images, masks, indices, 1).compile()
    box = [state]

    def call():
        box[0], metrics = compiled(box[0], images, masks, indices, 1)
        metrics["loss"].block_until_ready()

    call()
    return call


def sequential(model, members):
    """Return `predict(images)`, in which the members run one after the other."""
    predict, members, as_it_is = (
        make_predict(model),
        jax.device_put(members),
        jnp.zeros(1, int),
    )
    return lambda images: [predict(member, images, as_it_is) for member in members]


def vectorized(model, members):
    """Return `predict(images)`, in which `vmap` runs all members at once."""

    def probabilities(variables, images):
        return jax.nn.sigmoid(model.apply(variables, images, train=False))

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    predict = compilation.jit(jax.vmap(probabilities, in_axes=(0, None)))
    return lambda images: predict(stacked, images)


def ensemble(name, images, make):
    model = make_model(name)
    predict = make(model, [init_variables(model, channels=1, seed=i) for i in range(3)])

    def call():
        jax.block_until_ready(predict(images))

    call()
    return call


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="inception")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(args.batch, args.size, args.size, 1)).astype(np.float32)
    images = jax.device_put(images)
    masks = (images[..., 0] > 0).astype(np.float32)
    calls = {
        "step, ours": train_step(args.model, images, masks, ()),
        "step, textbook pools": train_step(args.model, images, masks, ("pools",)),
        "step, textbook convolutions": train_step(
            args.model, images, masks, ("convolutions",)
        ),
        "step, textbook": train_step(args.model, images, masks, tuple(TEXTBOOK)),
        "step, convolutions by YNNPACK": train_step(
            args.model, images, masks, ("YNNPACK",)
        ),
        "step, padding fused": train_step(args.model, images, masks, ("padding",)),
        "ensemble, sequential": ensemble(args.model, images, sequential),
        "ensemble, vmap": ensemble(args.model, images, vectorized),
    }
    times = {name: [] for name in calls}
    for _ in range(args.rounds):  # alternately, to spread the noise of the machine
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(t) for name, t in times.items()}
    print(f"{args.batch} x {args.size} x {args.size} on {jax.devices()}")
    for name, median in medians.items():
        base = medians[
            "step, ours" if name.startswith("step") else "ensemble, sequential"
        ]
        print(f"{name:30} {1e3 * median:8.0f} ms   {median / base:5.2f}")


if __name__ == "__main__":
    huge_pages.restart_with_huge_pages()
    main()
