"""The variables of a network: parameters and batch statistics."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungseg_jax.runtime import devices
from lungseg_jax.runtime.compilation import fixed_settings, jit_initializer


def init_variables(model: nn.Module, *, channels: int, seed: int) -> Any:
    """Draw initial {"params", "batch_stats"}, a function of `channels` and `seed`.

    Without batch norm, there are no batch statistics.
    """
    return dict(jit_initializer(partial(trace_init, model, channels, seed))())


def abstract_variables(model: nn.Module, *, channels: int) -> Any:
    """Return the shapes and types of `init_variables`, placed on the first device.

    Nothing is computed.
    """
    first = jax.sharding.SingleDeviceSharding(devices.local()[0])
    shapes = jax.eval_shape(partial(trace_init, model, channels, 0))
    return jax.tree.map(lambda leaf: leaf.update(sharding=first), dict(shapes))


@fixed_settings()
def trace_init(model: nn.Module, channels: int, seed: int) -> Any:
    """`model.init`, to be traced inside another compiled function."""
    # The weights do not depend on the image's size: the smallest compiles fastest.
    example = jnp.zeros((1, 16, 16, channels))
    return model.init(jax.random.key(seed), example, train=False)


def count_parameters(tree: Any) -> int:
    """Return the number of values in a tree of arrays, as in "178,529 parameters"."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
