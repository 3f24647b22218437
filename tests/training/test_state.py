"""The training state: its shapes, the contents of a checkpoint, and restoring them."""

import jax
import numpy as np
import optax

from lungseg_jax.models import make_model
from lungseg_jax.runtime import device_mesh
from lungseg_jax.training.state import make_init_fn


def new_init(sharding=None):
    return make_init_fn(
        make_model("conv", filters=1, levels=2),
        optax.adam(1e-3),
        channels=1,
        seed=0,
        sharding=sharding,
    )


def test_shapes_are_known_without_computing():
    init = new_init()
    shapes, state = init.eval_shape(), init()
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(shapes)] == [
        (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)
    ]


def test_a_checkpoint_has_everything_but_the_step():
    state = new_init()()
    assert state.variables.keys() == {"params", "batch_stats"}
    assert state.arrays.keys() == {"params", "batch_stats", "opt_state"}
    assert int(state.step) == 0


def test_a_median_that_is_tracked_is_part_of_a_checkpoint():
    init = make_init_fn(
        make_model("conv", filters=1, levels=2, norm="group"),
        optax.adam(1e-3),
        channels=1,
        seed=0,
        track_loss=True,
    )
    state = init()
    assert state.arrays.keys() == {"params", "opt_state", "loss_median"}
    assert state.variables.keys() == {"params"}
    assert float(state.at(3, state.arrays | {"loss_median": 0.5}).loss_median) == 0.5


def test_at_restores_arrays_and_step_with_the_same_sharding():
    replicated = device_mesh.replicated(device_mesh.make_mesh())
    state = new_init(replicated)()
    ones = jax.tree.map(lambda leaf: leaf + 1, state.arrays)
    restored = state.at(5, ones)
    assert int(restored.step) == 5 and restored.step.dtype == np.int32
    assert restored.step.sharding == state.step.sharding == replicated
    jax.tree.map(np.testing.assert_array_equal, restored.arrays, ones)
