"""The layers and blocks against Flax's own, by hand, and at initialization."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.models.blocks import (
    Conv,
    ConvNormAct,
    InceptionBlock,
    glorot_by_branch,
)
from lungseg_jax.models.norms import BatchNorm


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("momentum", [0.9, 0.99])
def test_conv_norm_act_by_hand(train, momentum):
    """Kernel 1, bias 0 on 1, 5, 1, 5: mean 3 and variance 4; running 0 and 1."""
    unit = ConvNormAct(1, 1, norm=partial(BatchNorm, momentum=momentum))
    x = jnp.array([1.0, 5.0, 1.0, 5.0]).reshape(1, 2, 2, 1)
    variables = unit.init(jax.random.key(0), x, train=False)
    variables["params"]["conv"]["kernel"] = jnp.ones((1, 1, 1, 1))
    y, updated = unit.apply(variables, x, train=train, mutable=["batch_stats"])
    if train:
        deviation = 2 / np.sqrt(4 + 1e-3)
        expected = [-0.3 * deviation, deviation]
    else:
        expected = np.array([1, 5]) / np.sqrt(1 + 1e-3)
    np.testing.assert_allclose(y.ravel()[:2], expected, rtol=1e-5)
    stats = updated["batch_stats"]["norm"]
    new = 1 - momentum if train else 0.0
    np.testing.assert_allclose(stats["mean"], [new * 3], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(stats["var"], [1 + new * 3], rtol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_conv_equals_linen_conv(kernel_size):
    x = jnp.array(np.random.default_rng(0).normal(size=(2, 7, 5, 4)), jnp.float32)
    ours = Conv(6, kernel_size)
    kernel = np.random.default_rng(1).normal(size=(kernel_size, kernel_size, 4, 6))
    params = {"kernel": kernel.astype(np.float32), "bias": jnp.arange(6.0)}
    linens = nn.Conv(6, (kernel_size, kernel_size))
    convolved, bias = ours.apply({"params": params}, x)
    np.testing.assert_allclose(
        convolved + bias, linens.apply({"params": params}, x), atol=1e-5
    )


@pytest.mark.parametrize(
    "shape,branches",
    [((1, 1, 64, 96), 3), ((3, 3, 32, 64), 1), ((1, 1, 96, 8), 1), ((3, 3, 8, 64), 2)],
)
def test_glorot_by_branch(shape, branches):
    """Standard deviation sqrt(2/(fan in + fan out)), with the fan out of each branch."""
    k, _, inputs, features = shape
    width = features // branches
    expected = np.sqrt(2 / (k * k * (inputs + width)))
    keys = jax.random.split(jax.random.key(0), 16)
    init = glorot_by_branch(branches)
    draw = jax.jit(jax.vmap(lambda key: init(key, shape)))
    kernels = np.asarray(draw(keys))  # [16 k k i o]
    assert kernels.shape == (16, *shape)
    for branch in range(branches):
        part = kernels[..., branch * width : (branch + 1) * width]
        assert part.std() == pytest.approx(expected, rel=0.03)
        assert part.mean() == pytest.approx(0, abs=0.05 * expected)
        if branch:
            assert np.abs(part - kernels[..., :width]).mean() > 0.5 * expected


def test_the_stem_is_initialized_by_branch():
    block, x = InceptionBlock(filters=64), jnp.zeros((1, 4, 4, 128))
    init = jax.jit(partial(block.init, train=False))
    stem = init(jax.random.key(0), x)["params"]["stem"]["conv"]
    # 128 input channels; three branches of 64, not one of 192.
    assert stem["kernel"].std() == pytest.approx(np.sqrt(2 / (128 + 64)), rel=0.03)
    assert not stem["bias"].any()


def test_order_of_the_inception_branches():
    """Output channels are deep, middle, point, pooled: a change in one affects no other."""
    block = InceptionBlock(filters=2)
    x = jnp.array(np.random.default_rng(0).normal(size=(1, 6, 6, 3)), jnp.float32)
    variables = jax.jit(partial(block.init, train=False))(jax.random.key(0), x)
    run = jax.jit(partial(block.apply, train=False))
    before = run(variables, x)
    assert before.shape == (1, 6, 6, 8)

    def changed(layer, channels=slice(None)):
        params = jax.tree.map(lambda a: a, variables["params"])
        bias = params[layer]["norm"]["bias"]
        params[layer]["norm"]["bias"] = bias.at[channels].add(1.0)
        after = run(variables | {"params": params}, x)
        moved = np.abs(after - before).max(axis=(0, 1, 2)) > 1e-6
        return {i // 2 for i in np.flatnonzero(moved)}

    assert changed("stem", slice(0, 2)) == {0}
    assert changed("stem", slice(2, 4)) == {1}
    assert changed("stem", slice(4, 6)) == {2}
    assert changed("deep_1") == changed("deep_2") == {0}
    assert changed("middle") == {1}
    assert changed("pooled") == {3}
