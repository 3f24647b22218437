"""The receptive field, computed and measured."""

import jax
import numpy as np
import pytest

from lungseg_jax.models import MODELS, make_model
from lungseg_jax.models.receptive_field import receptive_field
from lungseg_jax.models.variables import abstract_variables


@pytest.mark.parametrize(
    "name,levels,kernel_size",
    [
        ("conv", 2, 1),
        ("conv", 3, 3),
        ("conv", 2, 5),
        ("inception", 2, 3),
    ],
)
def test_it_is_the_extent_of_the_gradient(name, levels, kernel_size):
    """Take positive weights, on an image whose brightness rises in four directions.

    A max-pool passes its gradient to the largest pixel only. Each of the four images has
    it at another corner, and together they reach every side of the receptive field.
    """
    model = make_model(name, filters=1, levels=levels, kernel_size=kernel_size)
    variables = jax.tree.map(
        lambda leaf: np.full(leaf.shape, 1 / max(leaf.size, 1), np.float32),
        abstract_variables(model, channels=1),
    )
    field, strides = receptive_field(model), 2**levels
    size = 2 * (field // strides + 2) * strides
    rows, columns = np.mgrid[:size, :size] / size
    ramps = [
        1 + sign_y * rows + sign_x * columns + (sign_y < 0) + (sign_x < 0)
        for sign_y in (-1, 1)
        for sign_x in (-1, 1)
    ]
    images = np.stack(ramps)[..., None].astype(np.float32)

    @jax.jit
    def gradient(row, column):
        def logit(x):
            return model.apply(variables, x, train=False)[:, row, column].sum()

        return jax.grad(logit)(images)

    sides = []
    for position in range(size // 2, size // 2 + strides):
        touched = np.asarray(gradient(position, position)[..., 0] != 0).any(axis=0)
        for axis in (0, 1):
            extent = np.flatnonzero(touched.any(axis=axis))
            sides.append(extent[-1] - extent[0] + 1)
    assert max(sides) == field < size


@pytest.mark.parametrize(
    "name,fields",
    [("conv", (110, 222, 446, 894)), ("inception", (204, 412, 828, 1660))],
)
def test_fields_of_the_table_in_the_documentation(name, fields):
    assert fields == tuple(
        receptive_field(make_model(name, levels=levels)) for levels in (4, 5, 6, 7)
    )


def test_more_levels_see_more():
    for name in MODELS:
        fields = [receptive_field(make_model(name, levels=n)) for n in range(2, 9)]
        assert fields == sorted(set(fields))
