"""Convolutions of maps of folded rows: the forms for a TPU.

A TPU computes 128 channels at a time and pads an array of fewer. The wide levels of a U-Net
have 8 to 64. Folded, they have 128 and more, and kernels become `bands`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lungseg_jax.models.bands import convolve, place_taps, taps
from lungseg_jax.models.convolutions import apply_kernel
from lungseg_jax.models.layouts import (
    Folded,
    SkipConcat,
    as_folded,
    interleave_rows,
)


def conv2d(x: Folded | SkipConcat, kernel: jax.Array) -> Folded:
    """`convolutions.conv2d` of folded rows."""
    if isinstance(x, Folded):
        return _conv2d(x, kernel)
    split = x.channels - x.fine.channels
    is_pixels = isinstance(x.coarse, tuple)
    form = _conv2d_of_pixels if is_pixels else _conv2d_of_upsampled
    coarse = form(x.coarse, kernel[:, :, :split])
    return jax.tree.map(jnp.add, coarse, _conv2d(x.fine, kernel[:, :, split:]))


def _conv2d(x: Folded, kernel: jax.Array) -> Folded:
    k, _, inputs, outputs = kernel.shape
    columns = taps(k, x.pixels)

    def product(a, kernel):
        kernel = place_taps("dpqt,stio->sdipoq", columns, kernel)
        kernel = kernel.reshape(k, -1, inputs * x.pixels, outputs * x.pixels)
        return convolve(a, kernel)

    return Folded(apply_kernel(product, x.array, kernel), x.pixels)


def _conv2d_of_upsampled(x: Folded | jax.Array, kernel: jax.Array) -> Folded:
    """`_conv2d` of upsampled `x`, which has twice the rows, and pixels in a folded one.

    Both rows that a coarse row becomes are computed at once, side by side in the channels.
    """
    k, _, inputs, outputs = kernel.shape
    x = as_folded(x)
    fine = 2 * x.pixels
    rows, columns = taps(k, 2, scale=2)[:, 0], taps(k, fine, scale=2)

    def product(a, kernel):
        kernel = place_taps("ers,dpqt,stio->ediproq", rows, columns, kernel)
        kernel = kernel.reshape(*kernel.shape[:2], inputs * x.pixels, -1)
        return convolve(a, kernel)

    y = apply_kernel(product, x.array, kernel)
    return Folded(interleave_rows(*jnp.split(y, 2, axis=-1)), fine)


def _conv2d_of_pixels(x: tuple, kernel: jax.Array) -> Folded:
    """`_conv2d` of the upsampled map with the pixels `x`, for a 1x1 kernel."""
    _, _, inputs, outputs = kernel.shape
    coarse = x[0][0].pixels
    columns = np.eye(2 * coarse).reshape(coarse, 2, 2 * coarse)  # [p side q]

    def product(a, kernel):
        kernel = place_taps("pxq,stio->stxipoq", columns, kernel)
        return convolve(a, kernel.reshape(1, 1, 2 * inputs * coarse, -1))

    rows = (jnp.concatenate([side.array for side in row], axis=-1) for row in x)
    top, bottom = (apply_kernel(product, row, kernel) for row in rows)
    return Folded(interleave_rows(top, bottom), 2 * coarse)
