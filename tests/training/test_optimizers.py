"""Each optimizer's first update has its characteristic form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lungseg_jax.checkpointing.manifest import named_leaves
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import abstract_variables
from lungseg_jax.training.optimizers import OPTIMIZERS, make_optimizer

SETTINGS = {
    "weight_decay": 0.0,
    "epsilon": 1e-8,
    "clip_norm": 0.0,
    "muon_hidden_only": False,
}


def first_update(name, gradients, rate=0.01, **settings):
    tx = make_optimizer(optax.constant_schedule(rate), name=name, **SETTINGS | settings)
    params = jax.tree.map(jnp.ones_like, gradients)
    return jax.jit(tx.update)(gradients, tx.init(params), params)[0]


@pytest.fixture
def gradients():
    rng = np.random.default_rng(0)
    return {
        "kernel": jnp.array(rng.normal(size=(3, 3, 8, 16)), jnp.float32),
        "bias": jnp.array([0.5, -2.0]),
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_update_of_a_bias_is_the_rate_against_its_gradient(name, gradients):
    update = first_update(name, gradients)["bias"]
    rate = 0.01 * (1.4737 if name == "muon" else 1)  # its Adam uses Nesterov momentum
    np.testing.assert_allclose(update, [-rate, rate], rtol=1e-3)


def test_muon_updates_a_kernel_by_a_nearly_orthogonal_matrix(gradients):
    """Similar singular values, unlike the gradient's; the RMS is 0.2 times the rate."""
    skewed = gradients["kernel"] * jnp.linspace(0.01, 1, 16)
    update = first_update("muon", {"kernel": skewed})["kernel"]
    values = np.linalg.svd(update.reshape(72, 16), compute_uv=False)
    before = np.linalg.svd(skewed.reshape(72, 16), compute_uv=False)
    assert before[0] / before[-1] > 20
    assert values[0] / values[-1] < 2  # five Newton-Schulz steps come this close
    assert np.sqrt((update**2).mean()) == pytest.approx(0.2 * 0.01, rel=0.3)
    assert (update * skewed).sum() < 0  # downhill


@pytest.mark.parametrize("name,decays", [("adam", 0), ("adamw", 1), ("muon", 1)])
def test_weight_decay(name, decays, gradients):
    plain = first_update(name, gradients)["kernel"]
    decayed = first_update(name, gradients, weight_decay=0.1)["kernel"]
    np.testing.assert_allclose(plain - decayed, decays * 0.1 * 0.01, atol=1e-7)


def test_clip_norm_makes_the_gradient_norm_irrelevant(gradients):
    huge = jax.tree.map(lambda g: 1e6 * g, gradients)
    clipped = [
        first_update("adam", g, epsilon=1.0, clip_norm=1.0) for g in (gradients, huge)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), *clipped)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_of_equal_shape_are_updated_independently(name, gradients):
    """They are stacked internally."""
    tree = {
        "a": gradients,
        "b": jax.tree.map(lambda g: jnp.flip(g) * 3, gradients),
        "c": gradients["kernel"][..., 0],
    }
    together = first_update(name, tree)
    for key in ("a", "b", "c"):
        separate = first_update(name, tree[key])
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-8),
            together[key],
            separate,
        )


# --- first and last kernels under Muon ---


def network(channels=3):
    """Gradients of the shape of a small inception U-Net, all different."""
    model = make_model("inception", filters=4, levels=2)
    params = abstract_variables(model, channels=channels)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.array(rng.normal(size=leaf.shape), jnp.float32), params
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_only_kernels_that_see_the_image_and_the_head_leave_muon(channels):
    gradients = network(channels)
    updates = [
        named_leaves(first_update("muon", gradients, **settings))
        for settings in (
            {"muon_hidden_only": False},
            {"muon_hidden_only": True, "image_channels": channels},
        )
    ]
    changed = {  # two programs, which may round differently
        name
        for name in updates[0]
        if not np.allclose(updates[0][name], updates[1][name], rtol=1e-2, atol=1e-5)
    }
    assert changed == {
        "down_1/stem/conv/kernel",
        "down_1/pooled/conv/kernel",
        "head/kernel",
    }
    gradients = named_leaves(gradients)
    for name in changed:  # the first step of Adam, as for a bias
        expected = -0.01 * 1.4737 * np.sign(gradients[name])
        np.testing.assert_allclose(updates[1][name], expected, rtol=2e-3)


def test_the_old_state_has_no_stacks_of_ends():
    """Its names are in the checkpoints of version 0.1."""
    for hidden_only in (False, True):
        tx = make_optimizer(
            optax.constant_schedule(0.01),
            name="muon",
            image_channels=3,
            **SETTINGS | {"muon_hidden_only": hidden_only},
        )
        names = named_leaves(jax.eval_shape(tx.init, network()))
        assert any("/end_3x3x32x1" in name for name in names) == hidden_only
        assert any("/3x3x32x1" in name for name in names) != hidden_only


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_epsilon_reaches_adam_in_every_optimizer(name):
    """An epsilon as large as the gradient halves the first step."""
    gradient = {"bias": jnp.full(3, 0.5)}
    plain = first_update(name, gradient)["bias"]
    halved = first_update(name, gradient, epsilon=0.5)["bias"]
    np.testing.assert_allclose(halved, plain / 2, rtol=1e-4)
