"""Parity with Keras: the same networks with the same weights, forward and backward."""

import os
from functools import partial

import jax
import numpy as np
import pytest

from lungseg_jax.checkpointing.manifest import named_leaves
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import abstract_variables, count_parameters


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["KERAS_HOME"] = str(tmp_path_factory.mktemp("keras"))
    pytest.importorskip("keras", reason="pip install keras to test parity")
    from contestants import keras_unet  # of benchmarks/

    return keras_unet


def randomize(model, seed=0):
    """Draw kernels, biases, scales and moving statistics: none stays at zero or one."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        role, shape = weight.path.split("/")[-1], weight.shape
        if role == "kernel":
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        elif role in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        else:  # bias, beta, moving_mean
            value = rng.normal(0, 0.3, shape)
        weight.assign(value.astype(np.float32))


def from_keras(model):
    """Convert the weights of a Keras model to our tree."""
    params, stats = {}, {}
    for layer in model.layers:
        weights = [np.asarray(weight.value) for weight in layer.weights]
        if layer.name == "head":
            params["head"] = dict(zip(("kernel", "bias"), weights, strict=True))
        elif layer.name.endswith(".conv"):
            level, unit, _ = layer.name.split(".")
            pair = dict(zip(("kernel", "bias"), weights, strict=True))
            params.setdefault(level, {}).setdefault(unit, {})["conv"] = pair
        elif layer.name.endswith(".norm"):
            level, unit, _ = layer.name.split(".")
            scale, bias, mean, var = weights
            norm = {"scale": scale, "bias": bias}
            params.setdefault(level, {}).setdefault(unit, {})["norm"] = norm
            moving = {"norm": {"mean": mean, "var": var}}
            stats.setdefault(level, {})[unit] = moving

    def concatenate(*branches):
        return jax.tree.map(lambda *a: np.concatenate(a, axis=-1), *branches)

    for level in (*params.values(), *stats.values()):
        if "stem_deep" in level:
            stems = [level.pop(f"stem_{b}") for b in ("deep", "middle", "point")]
            level["stem"] = concatenate(*stems)
    return {"params": params, "batch_stats": stats}


@pytest.mark.parametrize(
    "name,kernel_size",
    [pytest.param("conv", 1, marks=pytest.mark.slow), ("conv", 3), ("inception", 3)],
)
def test_parity_with_keras(keras, name, kernel_size):
    # Zeros, for speed: `randomize` replaces all of them.
    theirs = keras.unet(
        name, kernel_size=kernel_size, channels=3, size=32, init="zeros"
    )
    randomize(theirs)
    variables = from_keras(theirs)
    ours = make_model(name, kernel_size=kernel_size, bn_momentum=0.99)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(
        np.shape,
        abstract_variables(ours, channels=3),
        is_leaf=lambda x: hasattr(x, "shape"),
    )
    assert theirs.count_params() == count_parameters(variables)

    images = np.random.default_rng(1).normal(0, 1, (2, 32, 32, 3)).astype(np.float32)
    trainable = [w.value for w in theirs.trainable_variables]
    moving = [w.value for w in theirs.non_trainable_variables]
    predict = jax.jit(partial(theirs.stateless_call, training=False))
    expected, _ = predict(trainable, moving, images)
    logits = jax.jit(partial(ours.apply, train=False))(variables, images)
    assert_same_probabilities(jax.nn.sigmoid(logits), expected[..., 0])

    # Gradients of the mean probability weighted by a ramp.
    ramp = np.linspace(-1, 1, 32)

    def their_loss(trainable):
        probabilities, moved = theirs.stateless_call(
            trainable, moving, images, training=True
        )
        probabilities = probabilities[..., 0]
        return (probabilities * ramp).mean(), (probabilities, moved)

    def our_loss(params):
        logits, updated = ours.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        probabilities = jax.nn.sigmoid(logits)
        return (probabilities * ramp).mean(), (probabilities, updated["batch_stats"])

    differentiate = partial(jax.grad, has_aux=True)
    expected, (their_output, moved) = jax.jit(differentiate(their_loss))(trainable)
    gradients, (output, updated) = jax.jit(differentiate(our_loss))(variables["params"])
    assert_same_probabilities(output, their_output)
    for weights, values in (
        (theirs.non_trainable_variables, moved),
        (theirs.trainable_variables, expected),
    ):
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)
    after = from_keras(theirs)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4),
        after["batch_stats"],
        updated,
    )
    expected, gradients = named_leaves(after["params"]), named_leaves(gradients)
    assert gradients.keys() == expected.keys()
    for path, gradient in gradients.items():
        if path.endswith("conv/bias"):  # rounding noise there, zero here
            continue
        largest = np.abs(expected[path]).max()
        np.testing.assert_allclose(
            gradient, expected[path], atol=1e-3 * largest, err_msg=path
        )


def assert_same_probabilities(ours, theirs):
    theirs = np.asarray(theirs)
    assert theirs.std() > 0.05  # neither flat nor saturated
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
