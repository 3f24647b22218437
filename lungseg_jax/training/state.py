"""All that training changes: parameters, batch statistics, optimizer, step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state


class TrainState(train_state.TrainState):
    """Flax's TrainState with batch statistics; `step` counts the updates applied."""

    batch_stats: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What the model's `apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def init_variables(model: nn.Module, *, channels: int, seed: int) -> Any:
    """Initial {"params", "batch_stats"}; they depend on the channels and `seed` alone."""
    return dict(_drawing(partial(_init, model, channels, seed))())


def abstract_variables(model: nn.Module, *, channels: int) -> Any:
    """Shapes and types of `init_variables`, for the first device; nothing is computed."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.eval_shape(partial(_init, model, channels, 0))
    return jax.tree.map(lambda leaf: leaf.update(sharding=first), dict(shapes))


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    channels: int,
    seed: int,
    sharding: jax.sharding.Sharding | None = None,
) -> TrainState:
    """The state before the first update: `make_init_fn(...)()`, with the same arguments."""
    return make_init_fn(model, tx, channels=channels, seed=seed, sharding=sharding)()


def make_init_fn(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    channels: int,
    seed: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable[[], TrainState]:
    """A compiled function that makes the state before the first update.

    Its `eval_shape()` gives the shapes, from which a step can be compiled meanwhile.

    Args:
      model: its `apply` goes into the state.
      tx: the optimizer.
      channels: of the network input.
      seed: of the initial weights.
      sharding: where the arrays are to lie, by default the first device.
    """

    def create() -> TrainState:
        variables = _init(model, channels, seed)
        return TrainState(
            step=jnp.zeros((), jnp.int32),  # an array: a Python int would compile twice
            apply_fn=model.apply,
            tx=tx,
            opt_state=tx.init(variables["params"]),
            **variables,
        )

    return _drawing(create, sharding)


def count_parameters(tree: Any) -> int:
    """Numbers in a tree of arrays, as in "178,529 parameters"."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _init(model, channels, seed):
    # The weights know nothing of the image's size: the smallest compiles fastest.
    example = jnp.zeros((1, 16, 16, channels))
    return model.init(jax.random.key(seed), example, train=False)


def _drawing(function, sharding=None):
    # Drawing weights compiles one program for each shape; unoptimised that takes a third
    # of the time, for the same numbers to 1e-7.
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(function, out_shardings=sharding, compiler_options=options)
