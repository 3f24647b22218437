"""Max-pools of maps of folded rows: the forms for a TPU.

What moves pixels within the channels is a product with a matrix of zeros and ones, which is
exact.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lungseg_jax.models.bands import convolve, taps
from lungseg_jax.models.layouts import (
    Folded,
    SkipConcat,
    as_folded,
    interleave_rows,
)
from lungseg_jax.models.pools import max_with_next


def max_pool_same(x: Folded | SkipConcat) -> Folded | SkipConcat:
    """`pools.max_pool_same` of folded rows."""
    if isinstance(x, SkipConcat):
        top = as_folded(x.coarse)
        rows = top, _max_with_row_below(top)
        pixels = tuple((left, _max_with_next_pixel(left)) for left in rows)
        return SkipConcat(pixels, max_pool_same(x.fine))
    return _max_with_next_pixel(_max_with_row_below(x))


def max_pool(x: Folded) -> Folded | jax.Array:
    """`pools.max_pool` of folded rows: half the rows, and half as many pixels in one."""
    y = _max_pool(x.array, x.pixels)
    return y if x.pixels == 2 else Folded(y, x.pixels // 2)


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
    return (interleave_rows(jnp.where(is_top, g, 0), jnp.where(is_top, 0, g)),)


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


def _move(x: jax.Array, zeros_and_ones: np.ndarray) -> jax.Array:
    """`convolve` with a kernel that only moves elements, and is exact."""
    return convolve(x, jnp.asarray(zeros_and_ones, x.dtype), "highest")
