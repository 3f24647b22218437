"""Each operator on folded rows against the plain one, forward and backward."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.models import make_model
from lungseg_jax.models.bands import pixels_to_fold
from lungseg_jax.models.layouts import (
    Folded,
    SkipConcat,
    concatenate_channels,
    fold,
    materialize,
    split_channels,
    unfold,
)
from lungseg_jax.models.norms import NORMS, make_norm
from lungseg_jax.models.operators import conv2d, max_pool, max_pool_same
from lungseg_jax.models.variables import init_variables
from lungseg_jax.runtime.compilation import tracing_for


def random(*shape, seed=0):
    return jnp.array(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def tied(*shape):
    """Small integers, many of which equal their neighbors."""
    return jnp.array(np.random.default_rng(0).integers(0, 3, shape), jnp.float32)


def results(f, *arguments):
    """The plain value of `f`, and its gradients by all arguments."""

    def loss(*arguments):
        y = unfold(f(*arguments))
        return (y * random(*y.shape, seed=9)).sum(), y

    argnums = tuple(range(len(arguments)))
    gradients, y = jax.jit(jax.grad(loss, argnums, has_aux=True))(*arguments)
    return y, gradients


def assert_same(f, folded, plain, *others, atol=2e-4):
    """Compare `f` of a folded map with `f` of the same map, plain."""
    y, (by_folded, *by_others) = results(f, folded, *others)
    expected, (by_plain, *by_others_plain) = results(f, plain, *others)
    by_folded = jax.tree.map(unfold, by_folded, is_leaf=lambda a: isinstance(a, Folded))
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-5, atol=atol),
        (y, *jax.tree.leaves(by_folded), *by_others),
        (expected, *jax.tree.leaves(by_plain), *by_others_plain),
    )


def skip_concat(pixels, make):
    """A folded SkipConcat with 3 + 2 channels, and the plain one."""
    coarse, fine = make(2, 3, 8, 3), make(2, 6, 16, 2)
    folded_coarse = coarse if pixels == 2 else fold(coarse, pixels // 2)
    return SkipConcat(folded_coarse, fold(fine, pixels)), SkipConcat(coarse, fine)


# --- layouts ---


def test_fold_by_hand():
    x = jnp.arange(8).reshape(1, 1, 4, 2)  # pixels (0, 1), (2, 3), (4, 5), (6, 7)
    folded = fold(x, 2)
    np.testing.assert_array_equal(folded.array[0, 0], [[0, 2, 1, 3], [4, 6, 5, 7]])
    assert folded.channels == 2
    np.testing.assert_array_equal(unfold(folded), x)


def test_channels_are_split_and_concatenated_as_in_plain_maps():
    x = random(1, 2, 4, 6)
    parts = split_channels(fold(x, 4), 3)
    for part, expected in zip(parts, jnp.split(x, 3, -1), strict=True):
        np.testing.assert_array_equal(unfold(part), expected)
    np.testing.assert_array_equal(unfold(concatenate_channels(*parts)), x)


@pytest.mark.parametrize("pixels", [2, 4])
def test_materialize_unfolds(pixels):
    folded, plain = skip_concat(pixels, random)
    np.testing.assert_array_equal(materialize(folded), materialize(plain))
    pooled, expected = map(max_pool_same, (folded, plain))
    np.testing.assert_array_equal(materialize(pooled), materialize(expected))
    np.testing.assert_array_equal(materialize(folded.fine), plain.fine)


@pytest.mark.parametrize(
    "width,channels,expected",
    [(512, 8, 16), (512, 32, 4), (512, 24, 4), (24, 8, 8), (70, 8, 2), (71, 8, 1)]
    + [(512, 128, 1), (512, 200, 1), (512, 1, 128)],
)
def test_pixels_to_fold(width, channels, expected):
    """They fill 128 channels as far as the width allows: odd rows are not folded."""
    assert pixels_to_fold(width, channels, 128) == expected


# --- operators ---


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("k", [1, 3, 5, 7])
@pytest.mark.parametrize("pixels", [2, 8])
def test_convolution(pixels, k, outputs):
    x, kernel = random(2, 5, 8, 3), random(k, k, 3, outputs, seed=1)
    assert_same(conv2d, fold(x, pixels), x, kernel)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("pixels", [2, 8])
def test_convolution_of_a_skip_concat(pixels, k, outputs):
    kernel = random(k, k, 5, outputs, seed=1)
    assert_same(conv2d, *skip_concat(pixels, random), kernel)


@pytest.mark.parametrize("make", [random, tied])
@pytest.mark.parametrize("pool", [max_pool, max_pool_same])
@pytest.mark.parametrize("pixels", [2, 8])
def test_pools_are_exact(pixels, pool, make):
    """And of equal pixels, the same one passes the gradient on."""
    x = make(2, 4, 16, 3)
    assert_same(pool, fold(x, pixels), x, atol=0)


@pytest.mark.parametrize("make", [random, tied])
@pytest.mark.parametrize("pixels", [2, 8])
def test_pool_same_of_a_skip_concat(pixels, make):
    """Followed by a 1x1 convolution, as in the inception block."""
    kernel = random(1, 1, 5, 4, seed=2)
    assert_same(
        lambda x, kernel: conv2d(max_pool_same(x), kernel),
        *skip_concat(pixels, make),
        kernel,
    )


@pytest.mark.parametrize("pool", [max_pool, max_pool_same])
def test_pools_keep_the_dtype(pool):
    x = fold(random(1, 4, 4, 2).astype(jnp.bfloat16), 2)
    assert unfold(pool(x)).dtype == jnp.bfloat16


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_norms(name, train):
    norm, x, bias = make_norm(NORMS[name])(), random(2, 3, 8, 4), random(4, seed=1)
    variables = norm.init(jax.random.key(0), x, bias, train=False)
    normalize = partial(norm.apply, train=train, mutable=["batch_stats"])

    def f(x, variables, bias):
        return jax.tree.map(lambda a: normalize(variables, a, bias)[0], x)

    assert_same(f, fold(x, 4), x, variables, bias)
    statistics = (normalize(variables, a, bias)[1] for a in (fold(x, 4).array, x))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *statistics)


# --- networks ---


@pytest.mark.parametrize(
    "name,norm,levels,width,remat",
    [
        ("conv", "batch", 3, 40, False),
        ("conv", "group", 2, 21, True),
        pytest.param("inception", "group", 2, 21, True, marks=pytest.mark.slow),
        pytest.param("inception", "batch", 3, 40, False, marks=pytest.mark.slow),
    ],
)
def test_networks(name, norm, levels, width, remat):
    """Whole ones, whose rows are not folded to the end: 5 and 3 folds of a row."""
    model = make_model(name, filters=2, levels=levels, norm=norm, remat=remat)
    variables = init_variables(model, channels=1, seed=0)
    images, weights = random(2, 19, width, 1), random(2, 19, width, seed=1)

    def run(platform):
        def loss(params):
            logits, stats = model.apply(
                variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return (logits * weights).sum(), (logits, stats)

        with tracing_for(platform):
            lowered = jax.jit(jax.grad(loss, has_aux=True)).lower(variables["params"])
        return lowered.as_text(), lowered.compile()(variables["params"])

    (folded_text, ours), (plain_text, theirs) = run("tpu"), run("cpu")
    assert folded_text != plain_text
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, atol=1e-4 * np.abs(b).max() + 1e-5
        ),
        ours,
        theirs,
    )
