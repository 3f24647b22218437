"""The networks of the comparison, by name."""

import functools

from lungseg_jax.models.blocks import ConvBlock, InceptionBlock
from lungseg_jax.models.unet import UNet
from lungseg_jax.runtime.errors import unknown_name

MODELS = {"conv": ConvBlock, "inception": InceptionBlock}


@functools.cache  # equal settings are one object, for which a program is compiled once
def make_model(
    name: str,
    *,
    filters: int = 8,
    kernel_size: int = 3,
    dtype: str = "float32",
    bn_momentum: float = 0.9,
) -> UNet:
    """A U-Net of `conv` or `inception` blocks; nothing is computed yet.

    Args:
      name: one of `MODELS`.
      filters: filters of the first level; 8 in the notebooks.
      kernel_size: of the conv blocks (1 in the notebook); inception blocks have theirs.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
      bn_momentum: weight of the past in the running batch statistics.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    block = MODELS[name]
    if block is ConvBlock:
        block = functools.partial(ConvBlock, kernel_size=kernel_size)
    return UNet(block=block, filters=filters, dtype=dtype, bn_momentum=bn_momentum)
