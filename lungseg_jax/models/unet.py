"""One U-Net body; the block is injected."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungseg_jax.models.blocks import Conv
from lungseg_jax.models.operators import SkipConcat, max_pool

DOWN = (1, 2, 4, 8)  # filters of each level, in units of the first
UP = (8, 4, 2, 1)


class UNet(nn.Module):
    """Images `[b h w c]` -> logits `[b h w]` in float32.

    Four levels down and four up, as in the notebooks: every skip connection but the last
    carries the feature *after* its max-pool, and there is no separate bottleneck.

    Attributes:
      block: creates the module of one level; see `lungseg_jax.models`.
      filters: filters of the first level; a level with f filters has 4f channels.
      dtype: dtype of the computation; parameters and statistics are float32.
      bn_momentum: weight of the past in the running batch statistics.
    """

    block: Callable[..., nn.Module]
    filters: int = 8
    dtype: Any = jnp.float32
    bn_momentum: float = 0.9

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        def level(name, factor):
            return self.block(
                filters=self.filters * factor,
                bn_momentum=self.bn_momentum,
                name=name,
            )

        height, width = images.shape[1:3]
        x = pad_to_multiple(images.astype(self.dtype), 2 ** len(DOWN))
        skips = []
        for i, factor in enumerate(DOWN, start=1):
            x = level(f"down_{i}", factor)(x, train=train)
            if i == 1:
                skips.append(x)
            x = max_pool(x)
            if i < len(DOWN):
                skips.append(x)
        for i, factor in enumerate(UP, start=1):
            x = level(f"up_{i}", factor)(x, train=train)
            x = SkipConcat(x, skips.pop())
        logits, bias = Conv(1, kernel_size=3, name="head")(x)
        return logits[:, :height, :width, 0].astype(jnp.float32) + bias


def pad_to_multiple(x: jax.Array, multiple: int) -> jax.Array:
    """Repeat the last row and column until both sides are multiples of `multiple`."""
    below, right = (-x.shape[1] % multiple, -x.shape[2] % multiple)
    if not below and not right:
        return x
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
