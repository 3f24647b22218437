"""Each fast operator against its textbook layer, forward and backward."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.models.layouts import SkipConcat, materialize, upsample2x
from lungseg_jax.models.operators import conv2d, max_pool, max_pool_same


def random(*shape, seed=0):
    return jnp.array(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def distinct(shape):
    values = np.random.default_rng(0).permutation(np.prod(shape))
    return jnp.array(values.reshape(shape), jnp.float32)


def textbook_convolution(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=dimensions
    )


def textbook_pool(x, strides):
    return nn.max_pool(x, (2, 2), strides, padding="SAME")


def assert_same(ours, theirs, *arguments):
    """Compare values and the gradients by all arguments, for random output weights."""

    def loss(f, *arguments):
        out = f(*arguments)
        return (out * random(*out.shape, seed=9)).sum()

    np.testing.assert_allclose(
        ours(*arguments), theirs(*arguments), rtol=1e-5, atol=1e-4
    )
    argnums = tuple(range(len(arguments)))
    gradients = [  # compiled as one program, not one for each operation
        jax.jit(jax.grad(partial(loss, f), argnums=argnums))(*arguments)
        for f in (ours, theirs)
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-4), *gradients)


def test_upsampling_by_hand():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
    np.testing.assert_array_equal(
        upsample2x(x)[0, :, :, 0],
        [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]],
    )
    pixels = ((x, 10 * x), (100 * x, 1000 * x))
    np.testing.assert_array_equal(
        upsample2x(pixels)[0, :, :, 0],
        [
            [1, 10, 2, 20],
            [100, 1000, 200, 2000],
            [3, 30, 4, 40],
            [300, 3000, 400, 4000],
        ],
    )


def test_materialize_by_hand():
    coarse, fine = jnp.array([[1.0, 2.0]]), jnp.arange(8.0).reshape(2, 4)
    x = SkipConcat(coarse[None, :, :, None], fine[None, :, :, None])
    channels = jnp.moveaxis(materialize(x)[0], -1, 0)
    np.testing.assert_array_equal(channels[0], [[1, 1, 2, 2], [1, 1, 2, 2]])
    np.testing.assert_array_equal(channels[1], fine)


def test_materialize_interleaves_pixels():
    pixels = tuple(
        tuple(random(1, 2, 3, 4, seed=2 * i + j) for j in (0, 1)) for i in (0, 1)
    )
    x = SkipConcat(pixels, random(1, 4, 6, 5, seed=8))
    array = materialize(x)
    assert array.shape == (1, 4, 6, x.channels)
    for i, j in np.ndindex(2, 2):
        np.testing.assert_array_equal(array[:, i::2, j::2, :4], pixels[i][j])
    np.testing.assert_array_equal(array[..., 4:], x.fine)


def test_materialize_returns_arrays_unchanged():
    x = random(1, 2, 2, 1)
    assert materialize(x) is x


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_convolution(k, outputs):
    x, kernel = random(2, 6, 5, 3), random(k, k, 3, outputs, seed=1)
    assert_same(conv2d, textbook_convolution, x, kernel)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("k", [1, 3, 5, 7])
@pytest.mark.parametrize("h,w", [(4, 3), (1, 1)])
def test_convolution_of_a_skip_concat(k, outputs, h, w):
    x = SkipConcat(random(2, h, w, 3), random(2, 2 * h, 2 * w, 2, seed=1))
    kernel = random(k, k, 5, outputs, seed=2)

    def theirs(x, kernel):
        return textbook_convolution(materialize(x), kernel)

    assert x.channels == 5
    assert_same(conv2d, theirs, x, kernel)


@pytest.mark.parametrize("ours,strides", [(max_pool, (2, 2)), (max_pool_same, (1, 1))])
@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (1, 2, 2, 1)])
def test_pools(ours, strides, shape):
    assert_same(ours, partial(textbook_pool, strides=strides), distinct(shape))


def test_pool_same_by_hand():
    x = jnp.array([[1.0, 9.0, 2.0], [3.0, 4.0, 5.0]])[None, :, :, None]
    expected = [[9, 9, 5], [4, 5, 5]]
    np.testing.assert_array_equal(max_pool_same(x)[0, :, :, 0], expected)


@pytest.mark.parametrize("h,w", [(4, 3), (1, 1)])
def test_pool_same_of_a_skip_concat(h, w):
    """Followed by a 1x1 convolution, as in the inception block."""
    x = SkipConcat(distinct((2, h, w, 3)), distinct((2, 2 * h, 2 * w, 2)))
    kernel = random(1, 1, 5, 4, seed=2)

    def ours(x, kernel):
        return conv2d(max_pool_same(x), kernel) / 10

    def theirs(x, kernel):
        pooled = textbook_pool(materialize(x), (1, 1))
        return textbook_convolution(pooled, kernel) / 10

    assert_same(ours, theirs, x, kernel)


@pytest.mark.parametrize("pool", [max_pool, max_pool_same])
def test_tied_pixels_pass_on_the_whole_gradient(pool):
    x = jnp.zeros((1, 4, 4, 2)).at[0, 1, 1].set(1.0)
    gradient = jax.grad(lambda x: pool(x).sum())(x)
    assert gradient.sum() == pool(x).size
    np.testing.assert_array_equal(
        pool(x) > 0, textbook_pool(x, (4 // pool(x).shape[1],) * 2) > 0
    )


@pytest.mark.parametrize("pool", [max_pool, max_pool_same])
def test_pools_keep_the_dtype(pool):
    x = distinct((1, 4, 4, 2)).astype(jnp.bfloat16)
    assert pool(x).dtype == jax.grad(lambda x: pool(x).sum())(x).dtype == x.dtype
