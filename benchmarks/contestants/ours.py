"""This project's train step and prediction."""

import jax
import numpy as np
import optax

from lungseg_jax.inference.ensemble.predictor import stack
from lungseg_jax.models import make_model
from lungseg_jax.training.losses import bce_dice
from lungseg_jax.training.state import create_state
from lungseg_jax.models.variables import init_variables
from lungseg_jax.inference.ensemble.predictor import make_ensemble_predict, make_train_step

LABEL = f"ours (jax {jax.__version__})"


def train_step(model, images, masks, dtype):
    tx = optax.adamw(1e-3, weight_decay=1e-4)
    state = create_state(make_model(model, dtype=dtype), tx, channels=1, seed=0)
    step = make_train_step(loss=bce_dice, augmentation={}, seed=0)
    images, masks, indices = jax.device_put((images, masks, np.arange(len(images))))

    def call():
        nonlocal state
        state, metrics = step(state, images, masks, indices)
        return float(metrics["loss"])

    return call


def predict(model, images, dtype, members):
    network = make_model(model, dtype=dtype)
    drawn = [init_variables(network, channels=1, seed=i) for i in range(members)]
    at_once = jax.default_backend() != "cpu"
    probabilities = make_ensemble_predict(network, vectorize=at_once)
    stacked = stack(drawn)
    images = jax.device_put(images)
    return lambda: probabilities(stacked, images).block_until_ready()
