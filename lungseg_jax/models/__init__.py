"""The networks, by name: one U-Net body with an injected block.

A block is a Flax module with

    block(filters=, norm=, name=)(x, *, train: bool) -> [b h w 4*filters]

and an attribute `reach`: how many pixels on each side an output depends on. `norm` makes a
normalization layer, `norm(name=)(x, bias, train=)`; see `lungseg_jax.models.norms`. The
input is an array `[b h w i]` or a `SkipConcat`, the concatenation of an upsampled
array with a skip connection that is never written to memory. A block may pass it to
`operators.conv2d` and `operators.max_pool_same`, which know both, or turn it into an array
with `layouts.materialize(x)` and then use any layer. One that also has an attribute
`narrowest`, the channels of its narrowest layer, gets and returns `layouts.Folded` maps on
a TPU; `blocks.ConvNormAct` and the operators know these too. To add a block, write the
module and add a row to MODELS; docs/how-to/extend.md shows a residual one.
"""

import functools
import numbers
from typing import Any

import flax.linen as nn

from lungseg_jax.models.blocks import ConvBlock, InceptionBlock
from lungseg_jax.models.norms import NORMS
from lungseg_jax.models.unet import DTYPES, PRECISIONS, UNet
from lungseg_jax.runtime.errors import UserError, unknown_name

# Of the numbers that describe a network: the smallest and the largest.
LIMITS = {
    "filters": (1, 1024),
    "levels": (2, 8),
    "kernel_size": (1, 15),
    "bn_momentum": (0.0, 0.9999),
}

MODELS = {"conv": ConvBlock, "inception": InceptionBlock}


def make_model(
    name: str,
    *,
    filters: int = 8,
    levels: int = 4,
    kernel_size: int = 3,
    norm: str = "batch",
    dtype: str = "float32",
    bn_momentum: float = 0.9,
    bn_per_device: bool = False,
    remat: bool = False,
    precision: str = "default",
) -> UNet:
    """Create a U-Net; nothing is computed yet.

    Equal arguments give the same object, so that it is compiled only once.

    Args:
      name: a key of MODELS.
      filters: filters of the first level; 8 in the notebooks.
      levels: levels on the way down, and as many on the way up; 4 in the notebooks.
      kernel_size: kernel of the conv blocks (1 in the notebook); other blocks ignore it.
      norm: a key of NORMS.
      dtype: dtype of the computation, one of DTYPES; parameters are float32.
      bn_momentum: weight of the past in the running batch statistics.
      bn_per_device: whether each device normalizes its part of a batch by itself.
      remat: compute the activations of blocks again in the backward pass.
      precision: of products and convolutions, one of PRECISIONS.

    Raises:
      UserError: a name is unknown, or a number is out of its range in LIMITS.
    """
    for kind, value, known in (
        ("model", name, MODELS),
        ("norm", norm, NORMS),
        ("dtype", dtype, DTYPES),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise unknown_name(kind, value, known)
    sizes = {"filters": filters, "levels": levels, "kernel_size": kernel_size}
    for kind, value in sizes.items():
        low, high = LIMITS[kind]
        if not isinstance(value, numbers.Integral) or not low <= value <= high:
            rule = f"a whole number from {low} to {high}."
            raise UserError(f"{kind}={value!r}.", rule=rule)
    if kernel_size % 2 == 0:
        raise UserError(f"kernel_size={kernel_size}.", rule="odd.")
    low, high = LIMITS["bn_momentum"]
    if not isinstance(bn_momentum, numbers.Real) or not low <= bn_momentum <= high:
        rule = f"a number from {low} to {high}."
        raise UserError(f"bn_momentum={bn_momentum!r}.", rule=rule)
    return _make_unet(
        MODELS[name],  # rows may be replaced, as in a notebook
        kernel_size,
        filters=filters,
        levels=levels,
        norm=NORMS[norm],
        dtype=dtype,
        bn_momentum=bn_momentum,
        bn_per_device=bn_per_device,
        remat=remat,
        precision=precision,
    )


@functools.cache
def _make_unet(block: type[nn.Module], kernel_size: int, **options: Any) -> UNet:
    if block is ConvBlock:
        block = functools.partial(ConvBlock, kernel_size=kernel_size)
    return UNet(block=block, **options)
