"""The operators on maps of folded rows: the forms for a TPU.

A TPU computes 128 channels at a time and pads an array of fewer. The wide levels of a U-Net
have 8 to 64. Folded, they have 128 and more, and the kernels of the plain operators become
bands of larger ones: most of a band is zero, but multiplying is what a TPU has plenty of.
What moves pixels within the channels is a product with a matrix of zeros and ones, which is
exact.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lungseg_jax.models.convolutions import apply_kernel
from lungseg_jax.models.layouts import Folded, SkipConcat
from lungseg_jax.models.pools import max_with_next

CHANNELS = 128  # that a TPU computes at a time


def pixels_to_fold(width: int, channels: int, filled: int = CHANNELS) -> int:
    """Return how many pixels of a row fill `filled` channels with `channels` each.

    It is a power of two that divides the width, so 1 if that is odd.
    """
    fitting = max(1, filled // channels)
    return min(1 << fitting.bit_length() - 1, width & -width)


def conv2d(x: Folded | SkipConcat, kernel: jax.Array) -> Folded:
    """`convolutions.conv2d` of folded rows."""
    if isinstance(x, Folded):
        return _conv2d(x, kernel)
    split = x.channels - x.fine.channels
    is_pixels = isinstance(x.coarse, tuple)
    form = _conv2d_of_pixels if is_pixels else _conv2d_of_upsampled
    coarse = form(x.coarse, kernel[:, :, :split])
    return jax.tree.map(jnp.add, coarse, _conv2d(x.fine, kernel[:, :, split:]))


def max_pool_same(x: Folded | SkipConcat) -> Folded | SkipConcat:
    """`pools.max_pool_same` of folded rows."""
    if isinstance(x, SkipConcat):
        top = _as_folded(x.coarse)
        rows = top, _max_with_row_below(top)
        pixels = tuple((left, _max_with_next_pixel(left)) for left in rows)
        return SkipConcat(pixels, max_pool_same(x.fine))
    return _max_with_next_pixel(_max_with_row_below(x))


def max_pool(x: Folded) -> Folded | jax.Array:
    """`pools.max_pool` of folded rows: half the rows, and half as many pixels in one."""
    y = _max_pool(x.array, x.pixels)
    return y if x.pixels == 2 else Folded(y, x.pixels // 2)


# --- convolutions ---


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
    x = _as_folded(x)
    fine = 2 * x.pixels
    rows, columns = taps(k, 2, scale=2)[:, 0], taps(k, fine, scale=2)

    def product(a, kernel):
        kernel = place_taps("ers,dpqt,stio->ediproq", rows, columns, kernel)
        kernel = kernel.reshape(*kernel.shape[:2], inputs * x.pixels, -1)
        return convolve(a, kernel)

    y = apply_kernel(product, x.array, kernel)
    return Folded(_interleave_rows(*jnp.split(y, 2, axis=-1)), fine)


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
    return Folded(_interleave_rows(top, bottom), 2 * coarse)


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


def _move(x: jax.Array, zeros_and_ones: np.ndarray) -> jax.Array:
    """`convolve` with a kernel that only moves elements, and is exact."""
    return convolve(x, jnp.asarray(zeros_and_ones, x.dtype), "highest")


def _as_folded(x: Folded | jax.Array) -> Folded:
    return x if isinstance(x, Folded) else Folded(x, 1)


def _interleave_rows(top: jax.Array, bottom: jax.Array) -> jax.Array:
    """Even and odd rows, `[b h w c]` each, as `[b 2h w c]`."""

    def spread(rows, before):  # stacked and reshaped, they would be copied
        axes = [(0, 0, 0), (before, 1 - before, 1), (0, 0, 0), (0, 0, 0)]
        return jax.lax.pad(rows, jnp.zeros((), rows.dtype), axes)

    return spread(top, 0) + spread(bottom, 1)


# --- pools ---


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x, pixels):
    return jnp.maximum(*_left_and_right(jnp.maximum(x[:, ::2], x[:, 1::2]), pixels))


def _max_pool_forward(x, pixels):
    return _max_pool(x, pixels), x


def _max_pool_backward(pixels, x, g):
    top, bottom = x[:, ::2], x[:, 1::2]
    sides, to_pixels = jax.vjp(
        partial(_left_and_right, pixels=pixels), jnp.maximum(top, bottom)
    )
    is_left = jnp.greater_equal(*sides)
    (g,) = to_pixels((jnp.where(is_left, g, 0), jnp.where(is_left, 0, g)))
    is_top = top >= bottom
    return (_interleave_rows(jnp.where(is_top, g, 0), jnp.where(is_top, 0, g)),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _left_and_right(x: jax.Array, pixels: int) -> tuple[jax.Array, jax.Array]:
    """The pixels with even numbers, and those with odd ones."""
    channels = x.shape[-1] // pixels
    sides = np.eye(pixels).reshape(pixels // 2, 2, pixels)  # [q side p]
    kernel = np.einsum("qxp,ij->ipxjq", sides, np.eye(channels))
    moved = _move(x, kernel.reshape(1, 1, *2 * [x.shape[-1]]))
    return tuple(jnp.split(moved, 2, axis=-1))


def _max_with_row_below(x: Folded) -> Folded:
    return Folded(max_with_next(x.array, 1), x.pixels)


def _max_with_next_pixel(x: Folded) -> Folded:
    if x.pixels == 1:
        return Folded(max_with_next(x.array, 2), 1)
    return Folded(_max_with_next(x.array, x.pixels), x.pixels)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_with_next(x, pixels):
    """The larger of each pixel and the next of its row; the last is unchanged."""
    last = _is_last(x, pixels)
    return jnp.maximum(x, jnp.where(last, x, _next_pixel(x, pixels)))


def _max_with_next_forward(x, pixels):
    return _max_with_next(x, pixels), x


def _max_with_next_backward(pixels, x, g):
    following, to_pixels = jax.vjp(partial(_next_pixel, pixels=pixels), x)
    is_first = (x >= following) | _is_last(x, pixels)
    (to_next,) = to_pixels(jnp.where(is_first, 0, g))
    return (jnp.where(is_first, g, 0) + to_next,)


_max_with_next.defvjp(_max_with_next_forward, _max_with_next_backward)


def _next_pixel(x: jax.Array, pixels: int) -> jax.Array:
    """The next pixel of each in its row; 0 after the last."""
    channels = x.shape[-1] // pixels
    following = taps(3, pixels)[1:, ..., 2]  # [d p q]
    kernel = np.einsum("dpq,ij->dipjq", following, np.eye(channels))
    return _move(x, kernel.reshape(1, 2, *2 * [x.shape[-1]]))


def _is_last(x: jax.Array, pixels: int) -> np.ndarray:
    """Which elements `[w c]` of `x` are the last of their row."""
    columns, channels = x.shape[2:]
    last = np.zeros((columns, channels), bool)
    last[-1, pixels - 1 :: pixels] = True
    return last
