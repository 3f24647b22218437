"""The form of narrow convolutions for a GPU against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.models import convolutions, make_model, operators, tensor_cores
from lungseg_jax.models.layouts import SkipConcat
from lungseg_jax.models.variables import init_variables
from lungseg_jax.runtime.compilation import tracing_for


def random(*shape, seed=0, dtype=jnp.float32):
    return jnp.array(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize(
    ("width", "inputs", "outputs"),
    [(32, 8, 8), (12, 8, 8), (7, 8, 8), (32, 1, 16), (8, 3, 5)],
)
@pytest.mark.parametrize("k", [3, 5])
def test_equals_the_plain_form(width, inputs, outputs, k):
    x, kernel = random(2, 6, width, inputs), random(k, k, inputs, outputs, seed=1)
    g = random(2, 6, width, outputs, seed=2)
    y, vjp = jax.vjp(tensor_cores.conv2d, x, kernel)
    expected, plain_vjp = jax.vjp(convolutions.conv2d, x, kernel)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=2e-4)
    for ours, plain in zip(vjp(g), plain_vjp(g), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=2e-4)


def test_kernels_stay_in_the_precision_of_the_network():
    """In bfloat16, as the plain form; sums of small integers are exact."""
    integers = np.random.default_rng(0).integers(-2, 3, (1, 4, 16, 8))
    x, kernel = jnp.array(integers, jnp.bfloat16), jnp.ones((3, 3, 8, 8))
    y = tensor_cores.conv2d(x, kernel)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, convolutions.conv2d(x, kernel))


@pytest.mark.parametrize(
    ("x", "kernel", "fills"),
    [
        (((1, 8, 8, 32), jnp.bfloat16), (3, 3, 32, 32), True),
        (((1, 8, 8, 32), jnp.float32), (3, 3, 32, 32), False),
        (((1, 8, 8, 33), jnp.bfloat16), (3, 3, 33, 16), False),
        (((1, 8, 8, 16), jnp.bfloat16), (3, 3, 16, 33), False),
        (((1, 8, 8, 16), jnp.bfloat16), (1, 1, 16, 16), False),
    ],
)
def test_what_is_computed_in_this_form(x, kernel, fills):
    assert tensor_cores.is_narrow(jnp.zeros(*x), jnp.zeros(kernel)) == fills


def test_maps_in_parts_keep_the_plain_form():
    x = SkipConcat(jnp.zeros((1, 4, 4, 4)), jnp.zeros((1, 8, 8, 4)))
    assert not tensor_cores.is_narrow(x, jnp.zeros((3, 3, 8, 8)))


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_only_a_gpu_gets_it(platform, monkeypatch):
    calls = []
    monkeypatch.setattr(tensor_cores, "conv2d", lambda x, kernel: calls.append(x) or x)
    with tracing_for(platform):
        operators.conv2d(jnp.zeros((1, 8, 8, 8), jnp.bfloat16), jnp.zeros((3, 3, 8, 8)))
    assert len(calls) == (platform == "gpu")


def test_a_network_for_a_gpu_equals_that_for_a_cpu():
    model = make_model("inception", filters=4, levels=2, dtype="bfloat16")
    variables = init_variables(model, channels=1, seed=0)
    images = random(2, 32, 32, 1)

    def logits(platform):
        with tracing_for(platform):
            y, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return y

    # bfloat16 has 8 bits; sums in another order differ by the last one.
    np.testing.assert_allclose(logits("gpu"), logits("cpu"), atol=0.1)
