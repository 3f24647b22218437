"""Everything that training changes: parameters, batch statistics, optimizer, step."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

from lungseg_jax.models.variables import trace_init
from lungseg_jax.runtime import device_mesh
from lungseg_jax.runtime.compilation import jit_initializer


class TrainState(train_state.TrainState):
    """Flax's TrainState with batch statistics; `step` counts the updates applied.

    Attributes:
      batch_stats: the running statistics; None without batch norm.
      loss_median: the running median of the images' losses, 0 before the first; None if it
        is not tracked. See `losses.track_median`.
    """

    batch_stats: Any = None
    loss_median: jax.Array | None = None

    @property
    def variables(self) -> dict[str, Any]:
        """The argument of the model's `apply`."""
        if self.batch_stats is None:
            return {"params": self.params}
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def arrays(self) -> dict[str, Any]:
        """The contents of a checkpoint."""
        arrays = self.variables | {"opt_state": self.opt_state}
        if self.loss_median is not None:
            arrays["loss_median"] = self.loss_median
        return arrays

    def at(self, step: int, arrays: dict[str, Any]) -> "TrainState":
        """Return the state with the step and the `arrays` of a checkpoint."""
        counter = device_mesh.place(np.int32(step), self.step.sharding)
        return self.replace(step=counter, **arrays)


def make_init_fn(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    channels: int,
    seed: int,
    track_loss: bool = False,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable[[], TrainState]:
    """Create a compiled function that returns the state before the first update.

    Its `eval_shape()` gives the shapes, so that a step can be compiled concurrently.

    Args:
      model: the network; its `apply` becomes part of the state.
      tx: the optimizer.
      channels: channels of the network's input.
      seed: seed of the initial weights.
      track_loss: keep a running median of the losses.
      sharding: placement of the arrays, by default on the first device.
    """

    def init() -> TrainState:
        variables = trace_init(model, channels, seed)
        return TrainState(
            step=jnp.zeros((), jnp.int32),  # a Python int would compile the step twice
            apply_fn=model.apply,
            tx=tx,
            opt_state=tx.init(variables["params"]),
            loss_median=jnp.zeros(()) if track_loss else None,
            **variables,
        )

    return jit_initializer(init, out_shardings=sharding)
