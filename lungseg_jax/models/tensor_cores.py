"""The form of narrow convolutions for a GPU.

Its tensor cores compute tiles of 32 output channels and more. The wide levels of a U-Net
have 8 to 32, and would leave most of a tile empty. With the neighbors of a row side by side
in the channels, which is the layout of a map in memory anyway, the tiles are full, and the
kernel becomes one of `bands`.

Measured in bfloat16 on an H200 (docs/scaling.md). Float32 keeps the plain form.
"""

import jax
import jax.numpy as jnp

from lungseg_jax.models.bands import convolve, pixels_to_fold, place_taps, taps
from lungseg_jax.models.convolutions import apply_kernel
from lungseg_jax.models.layouts import FeatureMap, SkipConcat

CHANNELS = 64  # of a tile; 32 took 7 % longer


def is_narrow(x: FeatureMap | SkipConcat, kernel: jax.Array) -> bool:
    """Whether a convolution is narrow, so that `conv2d` computes it faster."""
    k, _, inputs, outputs = kernel.shape
    return (
        isinstance(x, jax.Array)
        and x.dtype == jnp.bfloat16
        and k > 1
        and 2 * max(inputs, outputs) <= CHANNELS
    )


def conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolutions.conv2d` of a plain map `[b h w i]`."""
    k, _, inputs, outputs = kernel.shape
    b, h, w, _ = x.shape
    pixels = pixels_to_fold(w, max(inputs, outputs), CHANNELS)

    def product(a, kernel):
        kernel = place_taps("dpqt,stio->sdpiqo", taps(k, pixels), kernel)
        kernel = kernel.reshape(k, -1, pixels * inputs, pixels * outputs)
        return convolve(a, kernel)

    x = x.reshape(b, h, w // pixels, pixels * inputs)
    return apply_kernel(product, x, kernel).reshape(b, h, w, outputs)
