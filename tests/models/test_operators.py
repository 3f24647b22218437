"""Each fast form against the textbook layer, forward and backward."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.models.operators import (
    SkipConcat,
    conv2d,
    max_pool,
    max_pool_same,
    upsample2x,
)


def drawn(*shape, seed=0):
    return jnp.array(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def no_ties(shape):
    values = np.random.default_rng(0).permutation(np.prod(shape))
    return jnp.array(values.reshape(shape), jnp.float32)


def written_out(x):
    """The array that a Joined stands for."""
    return jnp.concatenate([upsample2x(x.coarse), x.fine], axis=-1)


def textbook_convolution(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=dimensions
    )


def textbook_pool(x, strides):
    return nn.max_pool(x, (2, 2), strides, padding="SAME")


def assert_same(ours, theirs, *arguments):
    """Values and gradients by every argument, for a random weight on each output."""

    def loss(f, *arguments):
        out = f(*arguments)
        return (out * drawn(*out.shape, seed=9)).sum()

    np.testing.assert_allclose(
        ours(*arguments), theirs(*arguments), rtol=1e-5, atol=1e-4
    )
    every = tuple(range(len(arguments)))
    gradients = [
        jax.grad(partial(loss, f), argnums=every)(*arguments) for f in (ours, theirs)
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-4), *gradients)


def test_spread_by_hand():
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


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_convolution(k, outputs):
    x, kernel = drawn(2, 6, 5, 3), drawn(k, k, 3, outputs, seed=1)
    assert_same(conv2d, textbook_convolution, x, kernel)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("k", [1, 3, 5, 7])
@pytest.mark.parametrize("h,w", [(4, 3), (1, 1)])
def test_convolution_of_a_joined(k, outputs, h, w):
    x = SkipConcat(drawn(2, h, w, 3), drawn(2, 2 * h, 2 * w, 2, seed=1))
    kernel = drawn(k, k, 5, outputs, seed=2)

    def theirs(x, kernel):
        return textbook_convolution(written_out(x), kernel)

    assert x.channels == 5
    assert_same(conv2d, theirs, x, kernel)


@pytest.mark.parametrize("ours,strides", [(max_pool, (2, 2)), (max_pool_same, (1, 1))])
@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (1, 2, 2, 1)])
def test_pools(ours, strides, shape):
    assert_same(ours, partial(textbook_pool, strides=strides), no_ties(shape))


def test_pool_same_by_hand():
    x = jnp.array([[1.0, 9.0, 2.0], [3.0, 4.0, 5.0]])[None, :, :, None]
    expected = [[9, 9, 5], [4, 5, 5]]
    np.testing.assert_array_equal(max_pool_same(x)[0, :, :, 0], expected)


@pytest.mark.parametrize("h,w", [(4, 3), (1, 1)])
def test_pool_same_of_a_joined(h, w):
    """Followed by a 1x1 convolution, as in the inception block."""
    x = SkipConcat(no_ties((2, h, w, 3)), no_ties((2, 2 * h, 2 * w, 2)))
    kernel = drawn(1, 1, 5, 4, seed=2)

    def ours(x, kernel):
        return conv2d(max_pool_same(x), kernel) / 10

    def theirs(x, kernel):
        pooled = textbook_pool(written_out(x), (1, 1))
        return textbook_convolution(pooled, kernel) / 10

    assert_same(ours, partial(theirs), x, kernel)


@pytest.mark.parametrize("pool", [max_pool, max_pool_same])
def test_a_gradient_goes_somewhere_where_pixels_tie(pool):
    x = jnp.zeros((1, 4, 4, 2)).at[0, 1, 1].set(1.0)
    gradient = jax.grad(lambda x: pool(x).sum())(x)
    assert gradient.sum() == pool(x).size
    np.testing.assert_array_equal(
        pool(x) > 0, textbook_pool(x, (4 // pool(x).shape[1],) * 2) > 0
    )


@pytest.mark.parametrize("pool", [max_pool, max_pool_same])
def test_pools_keep_the_dtype(pool):
    x = no_ties((1, 4, 4, 2)).astype(jnp.bfloat16)
    assert pool(x).dtype == jax.grad(lambda x: pool(x).sum())(x).dtype == x.dtype
