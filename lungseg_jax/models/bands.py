"""Kernels of pixels that are neighbors in the channels.

With p neighbors of a row side by side in the channels, a kernel becomes a band of kernels
between all of them. Most of it is zero, but multiplying costs accelerators little.
"""

import jax
import jax.numpy as jnp
import numpy as np


def pixels_to_fold(width: int, channels: int, filled: int) -> int:
    """Return how many pixels of a row fill `filled` channels with `channels` each.

    It is a power of two that divides the width, so 1 if that is odd.
    """
    fitting = max(1, filled // channels)
    return min(1 << fitting.bit_length() - 1, width & -width)


def taps(k: int, pixels: int, scale: int = 1) -> np.ndarray:
    """On which input pixels the taps of a kernel fall, as `[d p q t]` of zeros and ones.

    Tap t of the output pixel q, of `pixels` in a fold, is on the pixel p of the d-th fold,
    where the first d is on the left. Input pixels are `scale` output pixels wide.
    """
    reach = -(-(k // 2) // pixels)
    position = np.arange(pixels)[:, None] + np.arange(k) - k // 2
    d, p = np.divmod(position, pixels)
    folds = np.arange(-reach, reach + 1).reshape(-1, 1, 1, 1)
    return (d == folds) & (p // scale == np.arange(pixels // scale)[:, None, None])


def place_taps(axes: str, *arrays: jax.Array) -> jax.Array:
    """`jnp.einsum` that places the elements of its last array, which is exact.

    Elements that share a place are added in the dtype of that array.
    """
    *zeros_and_ones, kernel = arrays
    placed = [jnp.asarray(array, kernel.dtype) for array in zeros_and_ones]
    return jnp.einsum(axes, *placed, kernel, precision="highest")


def convolve(x: jax.Array, kernel: jax.Array, precision=None) -> jax.Array:
    """Convolution `[b h w i] -> [b h w o]`, also 1x1: products have other layouts."""
    return jax.lax.conv_general_dilated(
        *(x, kernel, (1, 1), "SAME"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )
