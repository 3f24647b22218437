"""Variables: drawn from a seed, described without being computed, counted."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lungseg_jax.models import make_model
from lungseg_jax.models.variables import (
    abstract_variables,
    count_parameters,
    init_variables,
)

MODEL = make_model("conv", filters=1, levels=2)


def test_initial_variables_are_a_function_of_the_seed():
    first, again = (init_variables(MODEL, channels=1, seed=3) for _ in range(2))
    other = init_variables(MODEL, channels=1, seed=4)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernels = [tree["params"]["head"]["kernel"] for tree in (first, other)]
    assert not np.array_equal(*kernels)


def test_abstract_variables_describe_the_initial_ones():
    abstract = abstract_variables(MODEL, channels=2)
    variables = init_variables(MODEL, channels=2, seed=0)
    assert jax.tree.structure(abstract) == jax.tree.structure(variables)
    for leaf, array in zip(
        jax.tree.leaves(abstract), jax.tree.leaves(variables), strict=True
    ):
        assert isinstance(leaf, jax.ShapeDtypeStruct)
        assert (leaf.shape, leaf.dtype) == (array.shape, array.dtype)
        assert leaf.sharding.device_set == {jax.local_devices()[0]}


def test_variables_do_not_follow_the_settings_of_the_process(other_settings):
    expected = init_variables(MODEL, channels=1, seed=0)
    with other_settings():
        variables = init_variables(MODEL, channels=1, seed=0)
        described = abstract_variables(MODEL, channels=1)
        init = partial(MODEL.init, train=False)  # not by a function of ours
        drawn = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    jax.tree.map(np.testing.assert_array_equal, expected, variables)
    for tree in (variables, described, drawn):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {np.dtype("float32")}


def test_counts_values_not_arrays():
    tree = {"kernel": jnp.zeros((3, 3, 2, 4)), "norm": {"bias": jnp.zeros(4)}}
    assert count_parameters(tree) == 3 * 3 * 2 * 4 + 4
