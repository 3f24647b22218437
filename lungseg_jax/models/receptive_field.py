"""The receptive field of a network: which part of the picture decides one pixel."""

from lungseg_jax.models.unet import UNet


def receptive_field(model: UNet) -> int:
    """Return the side in pixels of the square that a logit can depend on.

    It is computed backwards along the path through the deepest level, which contains all
    others: the head's 3x3 convolution and each block widen the square by their reach, an
    upsampling halves it, a max-pool doubles it. Because of the strides, the side depends on
    the position of the logit; this is the largest one. Group and instance norm also see the
    whole picture, but only through means over it.

    Source: Araujo, Norris & Sim, Computing receptive fields of convolutional neural
    networks, Distill 2019, doi:10.23915/distill.00021.
    """
    reach = model.block(filters=1).reach
    sides = []
    for position in range(2**model.levels):
        low, high = position - 1, position + 1
        for _ in range(model.levels):
            low, high = low // 2 - reach, high // 2 + reach
        for _ in range(model.levels):
            low, high = 2 * low - reach, 2 * high + 1 + reach
        sides.append(high - low + 1)
    return max(sides)
