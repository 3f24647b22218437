"""One U-Net body; the block is injected."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungseg_jax.models.bands import pixels_to_fold
from lungseg_jax.models.blocks import Conv
from lungseg_jax.models.layouts import FeatureMap, SkipConcat, fold, unfold
from lungseg_jax.models.norms import make_norm
from lungseg_jax.models.operators import materialize_gradient, max_pool
from lungseg_jax.runtime.compilation import target_platform

LANES = 128  # channels that a TPU computes at a time
FACTORS = (1, 2, 4, 8)  # filters of the first levels, in units of the first
DTYPES = ("float32", "bfloat16")  # of the computation
PRECISIONS = ("default", "high", "highest")  # of products and convolutions, in jax.lax


def _at_precision(call):
    """Decorate the `__call__` of a module that has a `precision`; gradients inherit it."""

    @functools.wraps(call)
    def at_precision(self, *args, **kwargs):
        precision = contextlib.nullcontext()
        if self.precision != "default":
            precision = jax.default_matmul_precision(self.precision)
        with precision:
            return call(self, *args, **kwargs)

    return at_precision


class UNet(nn.Module):
    """Images `[b h w c]` -> logits `[b h w]` in float32.

    As in the notebooks, which have four levels: every skip connection but the last carries
    the feature *after* its max-pool, and there is no separate bottleneck. Levels beyond the
    fourth have as many filters as the fourth. They are there for the receptive field, and
    what is left to see at that scale is coarse. Doubling the filters further would
    quadruple the parameters with every level: six levels would have sixteen times those of
    four, instead of about three times.

    Attributes:
      block: creates the module of one level; see `lungseg_jax.models`.
      filters: filters of the first level; a level with f filters has 4f channels.
      levels: levels on the way down, and as many on the way up.
      norm: a row of `norms.NORMS`.
      dtype: dtype of the computation; parameters and statistics are float32, and so is the
        head, whose logits would otherwise have the 8 bits of a bfloat16.
      bn_momentum, bn_per_device: see `norms.BatchNorm`.
      remat: in training, keep only the inputs of blocks and compute the rest of their
        activations again for the gradient (Chen et al., arXiv:1604.06174).
      precision: one of PRECISIONS. It matters to float32 on accelerators, whose default
        has fewer bits: bfloat16 products on a TPU, TensorFloat-32 on a GPU.
    """

    block: Callable[..., nn.Module]
    filters: int
    levels: int
    norm: Callable[..., nn.Module]
    dtype: Any
    bn_momentum: float
    bn_per_device: bool
    remat: bool
    precision: str

    @nn.compact
    @_at_precision
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        norm = make_norm(
            self.norm, momentum=self.bn_momentum, per_device=self.bn_per_device
        )

        def level(name, factor, x):
            block = self.block(filters=self.filters * factor, norm=norm, name=name)
            if self.remat and train:
                y = nn.remat(lambda block, x: block(x, train=True))(block, x)
            else:
                y = block(x, train=train)
            return materialize_gradient(y)

        factors = [FACTORS[min(i, len(FACTORS) - 1)] for i in range(self.levels)]
        height, width = images.shape[1:3]
        x = pad_to_multiple(images.astype(self.dtype), 2**self.levels)
        x = _fold_for_platform(x, self.block(filters=self.filters))
        skips = []
        for i, factor in enumerate(factors, start=1):
            x = level(f"down_{i}", factor, x)
            if i == 1:
                skips.append(x)
            x = materialize_gradient(max_pool(x))
            if i < self.levels:
                skips.append(x)
        for i, factor in enumerate(reversed(factors), start=1):
            x = level(f"up_{i}", factor, x)
            x = SkipConcat(x, skips.pop())
        x = jax.tree.map(lambda a: a.astype(jnp.float32), x)
        logits, bias = Conv(1, kernel_size=3, name="head")(x)
        return unfold(logits)[:, :height, :width, 0] + bias


def _fold_for_platform(x: jax.Array, block: nn.Module) -> FeatureMap:
    """Fold the rows of the network's input for a TPU, if its blocks can work on them.

    The operators follow the layout of their input.
    """
    narrowest = getattr(block, "narrowest", None)
    if target_platform() != "tpu" or narrowest is None:
        return x
    pixels = pixels_to_fold(x.shape[2], narrowest, LANES)
    return x if pixels == 1 else fold(x, pixels)


def pad_to_multiple(x: jax.Array, multiple: int) -> jax.Array:
    """Repeat the last row and column until both sides are multiples of `multiple`."""
    below, right = (-x.shape[1] % multiple, -x.shape[2] % multiple)
    if not below and not right:
        return x
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
