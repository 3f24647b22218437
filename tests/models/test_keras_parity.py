"""Parity with Keras: the same networks with the same weights, forward and backward."""

import os
from functools import partial

import jax
import numpy as np
import pytest

from lungseg_jax.checkpointing.manifest import named_leaves
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import abstract_variables, count_parameters

# Unoptimized programs compile several times faster; these tests run each of them once.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


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
    "name,kernel_size", [("conv", 1), ("conv", 3), ("inception", 3)]
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
    for train in (False, True):
        run = quick_jit(partial(theirs.stateless_call, training=train))
        expected, moved = run(trainable, moving, images)
        expected = np.asarray(expected)[..., 0]
        assert expected.std() > 0.05  # neither flat nor saturated
        run = quick_jit(partial(ours.apply, train=train, mutable=["batch_stats"]))
        logits, updated = run(variables, images)
        np.testing.assert_allclose(jax.nn.sigmoid(logits), expected, atol=1e-4)
    for weight, value in zip(theirs.non_trainable_variables, moved, strict=True):
        weight.assign(value)
    after = from_keras(theirs)["batch_stats"]
    _check_gradients(theirs, ours, trainable, moving, variables, images)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4),
        after,
        updated["batch_stats"],
    )


def _check_gradients(theirs, ours, trainable, moving, variables, images):
    """Compare gradients of the mean probability weighted by a ramp, in training mode."""
    ramp = np.linspace(-1, 1, 32)

    def their_loss(trainable):
        probabilities, _ = theirs.stateless_call(
            trainable, moving, images, training=True
        )
        return (probabilities[..., 0] * ramp).mean()

    def our_loss(params):
        logits, _ = ours.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return (jax.nn.sigmoid(logits) * ramp).mean()

    expected = quick_jit(jax.grad(their_loss))(trainable)
    for weight, value in zip(theirs.trainable_variables, expected, strict=True):
        weight.assign(value)
    expected = named_leaves(from_keras(theirs)["params"])
    gradients = named_leaves(quick_jit(jax.grad(our_loss))(variables["params"]))
    assert gradients.keys() == expected.keys()
    for path, gradient in gradients.items():
        if path.endswith("conv/bias"):  # rounding noise there, zero here
            continue
        largest = np.abs(expected[path]).max()
        np.testing.assert_allclose(
            gradient, expected[path], atol=1e-3 * largest, err_msg=path
        )
