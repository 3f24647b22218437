"""The norms against Flax's own, and what distinguishes them."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.models import norms
from lungseg_jax.models.norms import NORMS, BatchNorm, GroupNorm, make_norm


def both_ways(f, x, variables):
    """Return y, statistics = f(x, variables) and the gradients by x and the parameters."""
    weights = np.random.default_rng(1).normal(size=x.shape)

    def loss(x, variables):
        y, statistics = f(x, variables)
        return (y * weights).sum(), (y, statistics)

    (by_x, by_variables), out = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(
        x, variables
    )
    return by_x, by_variables["params"], out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("train", [False, True])
def test_norm_equals_linen_batch_norm_after_a_bias(train, dtype):
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(2, 3, (2, 5, 4, 3)), dtype)
    vectors = [jnp.array(rng.uniform(0.5, 2, 3), jnp.float32) for _ in range(5)]
    scale, offset, mean, var, bias = vectors
    variables = {
        "params": {"scale": scale, "bias": offset},
        "batch_stats": {"mean": mean, "var": var},
    }
    linens = nn.BatchNorm(
        use_running_average=not train, momentum=0.8, epsilon=1e-3, dtype=dtype
    )

    def ours(x, variables):
        norm = partial(BatchNorm(0.8).apply, mutable=["batch_stats"], train=train)
        return norm(variables, x, bias)

    def theirs(x, variables):
        return linens.apply(variables, x + bias, mutable=["batch_stats"])

    bits = {"float32": 1e-5, "bfloat16": 0.03}[dtype]
    close = partial(np.testing.assert_allclose, rtol=bits, atol=20 * bits)
    jax.tree.map(
        lambda a, b: close(a.astype("float32"), b.astype("float32")),
        both_ways(ours, x, variables),
        both_ways(theirs, x, variables),
    )


@pytest.mark.parametrize("pixels", [1, 2])
def test_devices_normalize_their_own_examples(pixels, monkeypatch):
    """Each part of the batch as by itself; running statistics are means of the parts'."""
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(2, 3, (6, 5, 4, 3 * pixels)), jnp.float32)
    bias = jnp.array(rng.uniform(0.5, 2, 3), jnp.float32)
    variables = BatchNorm().init(jax.random.key(0), x, bias, train=True)

    def normalize(norm, x):
        return norm.apply(variables, x, bias, mutable=["batch_stats"], train=True)

    parts = [normalize(BatchNorm(), part) for part in jnp.split(x, 3)]
    expected = jnp.concatenate([y for y, _ in parts])
    means = jax.tree.map(lambda *s: sum(s) / 3, *(stats for _, stats in parts))
    monkeypatch.setattr(norms, "_devices_sharing", lambda: 3)
    y, stats = normalize(BatchNorm(per_device=True), x)
    together, _ = normalize(BatchNorm(), x)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), stats, means)
    assert np.abs(together - expected).max() > 0.01


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "channels,per_group,groups",
    [(16, 8, 2), (24, 8, 3), (20, 8, 5), (7, 8, 7), (1, 8, 1), (6, 1, 6)],
)
def test_group_norm_equals_linen_group_norm_after_a_bias(
    channels, per_group, groups, dtype
):
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(2, 3, (2, 5, 4, channels)), dtype)
    scale, offset, bias = (
        jnp.array(rng.uniform(0.5, 2, channels), jnp.float32) for _ in range(3)
    )
    variables = {"params": {"scale": scale, "bias": offset}}
    linens = nn.GroupNorm(num_groups=groups, epsilon=1e-3, dtype=dtype)
    bits = {"float32": 2e-5, "bfloat16": 0.03}[dtype]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a.astype("float32"), b.astype("float32"), rtol=bits, atol=20 * bits
        ),
        both_ways(
            lambda x, v: (GroupNorm(per_group).apply(v, x, bias, train=True), {}),
            x,
            variables,
        ),
        both_ways(lambda x, v: (linens.apply(v, x + bias), {}), x, variables),
    )


@pytest.mark.parametrize("name", NORMS)
def test_parameters_have_the_same_names(name):
    norm = make_norm(NORMS[name], momentum=0.5)(name="norm")
    x, bias = jnp.ones((1, 2, 2, 16)), jnp.zeros(16)
    variables = jax.eval_shape(
        partial(norm.init, train=False), jax.random.key(0), x, bias
    )
    assert {k: v.shape for k, v in variables["params"].items()} == {
        "scale": (16,),
        "bias": (16,),
    }
    assert ("batch_stats" in variables) == (name == "batch")


@pytest.mark.parametrize(
    "name,is_zero", [("batch", True), ("group", False), ("instance", True)]
)
def test_the_gradient_of_a_bias_that_is_subtracted_again_is_exactly_zero(name, is_zero):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, 2, 3, 4, 16)).astype(np.float32)
    norm = make_norm(NORMS[name])()
    variables = norm.init(jax.random.key(0), x, jnp.zeros(16), train=False)

    def loss(bias):
        y, _ = norm.apply(variables, x, bias, train=True, mutable=["batch_stats"])
        return (y * weights).sum()

    gradient = jax.grad(loss)(jnp.ones(16))
    assert (np.abs(gradient).max() == 0) == is_zero


def test_group_norm_does_not_mix_the_branches_of_a_stem():
    """Three branches of f channels: a change in one leaves the others as they are."""
    for f in (1, 2, 3, 4, 6, 8, 64):
        x = np.random.default_rng(0).normal(size=(1, 3, 3, 3 * f)).astype(np.float32)
        norm, bias = GroupNorm(), jnp.zeros(3 * f)
        variables = norm.init(jax.random.key(0), x, bias, train=False)
        changed = x.copy()
        changed[..., :f] *= 3
        before, after = (
            norm.apply(variables, a, bias, train=False) for a in (x, changed)
        )
        np.testing.assert_array_equal(before[..., f:], after[..., f:])
