"""This project's train step and prediction."""

import jax
import numpy as np
import optax

from lungseg_jax.inference.ensemble.predictor import make_predict
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import init_variables
from lungseg_jax.training.losses import bce_dice
from lungseg_jax.training.state import make_init_fn
from lungseg_jax.training.steps import make_train_steps

LABEL = f"ours (jax {jax.__version__})"


def train_step(model, images, masks, dtype):
    tx = optax.adamw(1e-3, weight_decay=1e-4)
    state = make_init_fn(make_model(model, dtype=dtype), tx, channels=1, seed=0)()
    step = make_train_steps(loss=bce_dice, augmentation={}, seed=0)
    indices = np.arange(len(images))[None]
    images, masks, indices = jax.device_put((images, masks, indices))

    def call():
        nonlocal state
        state, metrics = step(state, images, masks, indices, 1)
        return metrics["loss"]

    return call


def predict(model, images, dtype, members):
    network = make_model(model, dtype=dtype)
    variables = [init_variables(network, channels=1, seed=i) for i in range(members)]
    probabilities = make_predict(network)
    images, variables, as_it_is = jax.device_put((images, variables, np.int32([0])))
    return lambda: [probabilities(member, images, as_it_is) for member in variables]


def awaited(call):
    """Return a function that calls, and returns when the result is there."""
    return lambda: wait(call())


def wait(result):
    jax.block_until_ready(result)


def device_memory():
    stats = jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else None
