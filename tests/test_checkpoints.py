"""Which checkpoints exist, and that what comes back is what went in."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lungseg_jax import checkpoints
from lungseg_jax.checkpoints import Checkpoints
from lungseg_jax.errors import UserError
from lungseg_jax.models import make_model
from lungseg_jax.train_state import create_state


@pytest.fixture(scope="module")
def state():
    model = make_model("conv", filters=1)
    return create_state(model, optax.adamw(1e-3), channels=1, seed=0)


def at(state, step):
    """The same state after `step` updates, with weights that tell it."""
    params = jax.tree.map(lambda a: jnp.full_like(a, step), state.params)
    return state.replace(step=jnp.int32(step), params=params)


@pytest.mark.parametrize(
    "last,kept", [(2, [2]), (4, [3, 4]), (6, [3, 4, 6]), (8, [3, 7, 8]), (9, [3, 7, 9])]
)
def test_snapshots_stay_and_before_the_last_the_newest_two(tmp_path, state, last, kept):
    with Checkpoints(tmp_path, snapshots=[3, 7, 9]) as saved:
        for step in (2, 3, 4, 6, 7, 8, 9):
            if step <= last:
                saved.save(at(state, step), {})
    assert checkpoints.saved_steps(tmp_path) == kept


def test_restore_is_the_newest_and_equal(tmp_path, state):
    with Checkpoints(tmp_path, snapshots=[3]) as saved:
        saved.save(at(state, 3), {})
        saved.save(at(state, 5), {})
    with Checkpoints(tmp_path, snapshots=[3]) as saved:
        restored, _ = saved.restore(state)
    assert int(restored.step) == 5
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored.params, at(state, 5).params)
    jax.tree.map(np.testing.assert_array_equal, restored.opt_state, state.opt_state)


def test_a_save_that_is_followed_by_donated_updates_is_not_disturbed(tmp_path, state):
    update = jax.jit(lambda tree: jax.tree.map(lambda a: a + 1, tree), donate_argnums=0)
    copy = jax.tree.map(jnp.copy, at(state, 1).params)
    with Checkpoints(tmp_path, snapshots=[]) as saved:
        saved.save(state.replace(step=jnp.int32(1), params=copy), {})
        for _ in range(50):
            copy = update(copy)
    with Checkpoints(tmp_path, snapshots=[]) as saved:
        restored, _ = saved.restore(state)
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(restored.params))


def test_nothing_saved_restores_the_state_itself(tmp_path, state):
    with Checkpoints(tmp_path, snapshots=[]) as saved:
        assert saved.restore(state)[0] is state
    assert checkpoints.saved_steps(tmp_path / "none") == []


def test_variables_come_without_the_optimizer(tmp_path, state):
    with Checkpoints(tmp_path, snapshots=[4]) as saved:
        saved.save(at(state, 4), {})
    like = {"params": state.params, "batch_stats": state.batch_stats}
    variables = checkpoints.restore_variables(tmp_path, 4, like)
    assert variables.keys() == {"params", "batch_stats"}
    assert all((leaf == 4).all() for leaf in jax.tree.leaves(variables["params"]))
    with pytest.raises(UserError, match="no step 5"):
        checkpoints.restore_variables(tmp_path, 5, like)


def test_another_network_is_refused_by_the_name_of_an_array(tmp_path, state):
    with Checkpoints(tmp_path, snapshots=[]) as saved:
        saved.save(at(state, 1), {})
    wider = create_state(
        make_model("conv", filters=2), optax.adamw(1e-3), channels=1, seed=0
    )
    with Checkpoints(tmp_path, snapshots=[]) as saved:
        with pytest.raises(UserError, match="down_1/layer"):
            saved.restore(wider)
