"""The operations under the blocks, in forms that move little memory.

Each computes what the textbook layer does; tests hold it against that, forward and
backward. On two CPU cores the train step of the inception U-Net takes about a third of the
time of the textbook forms (`benchmarks/formulations.py --size 256`). Arrays are
`[b h w c]`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# What one coarse pixel becomes: ((top left, top right), (bottom left, bottom right)).
Pixels = tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class SkipConcat(NamedTuple):
    """`spread(coarse)` and `fine` side by side along the channels, never written out.

    A convolution of it is the sum of two: the widest arrays of a U-Net need not exist.

    Attributes:
      coarse: `[b h w c]`, or four of them where the pixels of a spread one differ.
      fine: `[b 2h 2w d]`.
    """

    coarse: jax.Array | Pixels
    fine: jax.Array

    @property
    def channels(self) -> int:
        return jax.tree.leaves(self.coarse)[0].shape[-1] + self.fine.shape[-1]


def upsample2x(coarse: jax.Array | Pixels) -> jax.Array:
    """Nearest-neighbour up-sampling by two, `[b h w c] -> [b 2h 2w c]`.

    Of four `Pixels` each has its own place in the square that one pixel becomes.
    """
    if isinstance(coarse, tuple):
        x = jnp.stack([jnp.stack(row, axis=3) for row in coarse], axis=2)
        b, h, _, w, _, c = x.shape
    else:
        b, h, w, c = coarse.shape
        x = jnp.broadcast_to(coarse[:, :, None, :, None], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def conv2d(x: jax.Array | SkipConcat, kernel: jax.Array) -> jax.Array:
    """Convolution with stride 1 and SAME zero padding, kernel `[k k i o]`, k odd.

    Computed in the dtype of `x`.
    """
    k, _, inputs, outputs = kernel.shape
    if k > 1 and outputs == 1:
        # One output channel leaves most of a convolution's lanes idle: a product for all
        # the taps at once, and their sum.
        taps = kernel[..., 0].transpose(2, 0, 1).reshape(1, 1, inputs, k * k)
        return _add_taps(conv2d(x, taps), k)
    if isinstance(x, SkipConcat):
        split = inputs - x.fine.shape[-1]
        fine = conv2d(x.fine, kernel[:, :, split:])
        kernel = kernel[:, :, :split]
        if k > 1:
            return _convolve_spread(x.coarse, kernel) + fine
        return upsample2x(jax.tree.map(lambda a: conv2d(a, kernel), x.coarse)) + fine
    if k == 1:
        # A matrix product, and flat: over three axes XLA would sum the gradient of the
        # kernel from transposed copies.
        b, h, w, _ = x.shape
        flat = x.reshape(-1, inputs) @ kernel[0, 0].astype(x.dtype)
        return flat.reshape(b, h, w, outputs)
    return _convolve(x, kernel, "SAME")


def max_pool_same(x: jax.Array | SkipConcat) -> jax.Array | SkipConcat:
    """2x2 max-pool with stride 1 and SAME padding, which lies below and to the right."""
    if isinstance(x, SkipConcat):
        top, below = x.coarse, _max_with_next(x.coarse, 1)
        pixels = tuple((left, _max_with_next(left, 2)) for left in (top, below))
        return SkipConcat(pixels, max_pool_same(x.fine))
    return _max_with_next(_max_with_next(x, 1), 2)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max-pool with stride 2, `[b 2h 2w c] -> [b h w c]`.

    The gradient of `nn.max_pool` is a select-and-scatter, which alone makes the train
    step twice as slow on the CPU.
    """
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def _max_pool_forward(x):
    return max_pool(x), x


def _max_pool_backward(x, g):
    # Pixels are compared with each other and not with the maximum: XLA may compute them
    # anew for this, with another rounding, and none would equal it.
    a, b, c, d = (x[:, i::2, j::2] for i, j in np.ndindex(2, 2))
    left = jnp.maximum(a, c) >= jnp.maximum(b, d)
    top = jnp.where(left, a >= c, b >= d)
    rows = jnp.where(top, g, 0), jnp.where(top, 0, g)
    pixels = tuple((jnp.where(left, r, 0), jnp.where(left, 0, r)) for r in rows)
    return (upsample2x(pixels),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_with_next(x, axis):
    """Each element or the next along an axis, whichever is larger; the last stays."""
    return jnp.maximum(*_with_next(x, axis))


def _max_with_next_forward(x, axis):
    return _max_with_next(x, axis), x


def _max_with_next_backward(axis, x, g):
    own = jnp.greater_equal(*_with_next(x, axis))
    lost = _pad(jnp.where(own, 0, g), axis, 1, 0, 0)
    return (jnp.where(own, g, 0) + jax.lax.slice_in_dim(lost, 0, -1, axis=axis),)


_max_with_next.defvjp(_max_with_next_forward, _max_with_next_backward)


def _with_next(x, axis):
    """`x`, and what follows each of its elements along an axis: after the last, -inf."""
    padded = _pad(x, axis, 0, 1, -jnp.inf)
    if jax.default_backend() == "cpu":
        # Else each use pads anew, element by element: the step takes 1.09 times as long.
        padded = jax.lax.optimization_barrier(padded)
    return tuple(
        jax.lax.slice_in_dim(padded, start, start + x.shape[axis], axis=axis)
        for start in (0, 1)
    )


def _pad(x, axis, before, after, fill):
    """`lax.pad` along an axis, which fuses; `jnp.concatenate` does not."""
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (before, after, 0)
    return jax.lax.pad(x, jnp.array(fill, x.dtype), padding)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _add_taps(taps, k):
    """`[b h w k*k] -> [b h w 1]`: each tap of a kernel is read where it lies."""
    _, h, w, _ = taps.shape
    taps = _pad_sides(taps, k // 2, k // 2)
    offsets = np.ndindex(k, k)
    return sum(
        taps[:, i : i + h, j : j + w, n, None] for n, (i, j) in enumerate(offsets)
    )


def _add_taps_forward(taps, k):
    return _add_taps(taps, k), None


def _add_taps_backward(k, _, g):
    """The same, mirrored; autodiff pads nine arrays in place of one."""
    _, h, w, _ = g.shape
    g = _pad_sides(g, k // 2, k // 2)
    offsets = reversed(list(np.ndindex(k, k)))
    return (jnp.concatenate([g[:, i : i + h, j : j + w] for i, j in offsets], -1),)


_add_taps.defvjp(_add_taps_forward, _add_taps_backward)


def _convolve_spread(x, kernel):
    """`convolve(spread(x), kernel)` without the spread array.

    Of the k taps along an axis several fall on the same coarse pixel and are added up
    beforehand. For k = 3 that leaves 2 x 2 taps for each of the four pixels: 16 products
    in place of 36.
    """
    k, _, _, outputs = kernel.shape
    r, (_, h, w, _) = k // 2, x.shape
    first = [(side - r) // 2 for side in (0, 1)]  # coarse offset of the first tap

    def folded(kernel, side):
        position = (side - r + np.arange(k)) // 2 - first[side]
        return jnp.stack([kernel[position == p].sum(axis=0) for p in range(r + 1)])

    def quarter(row, column):
        half = folded(kernel, row).swapaxes(0, 1)
        return folded(half, column).swapaxes(0, 1)

    quarters = [quarter(row, column) for row, column in np.ndindex(2, 2)]
    # Padded apart: XLA's CPU backend is slow at the kernel's gradient otherwise.
    x = _pad_sides(x, -first[0], (1 + r) // 2)
    y = _convolve(x, jnp.concatenate(quarters, axis=-1), "VALID")

    def pixel(row, column):
        top, left = first[row] - first[0], first[column] - first[0]
        n = (2 * row + column) * outputs
        return y[:, top : top + h, left : left + w, n : n + outputs]

    return upsample2x(((pixel(0, 0), pixel(0, 1)), (pixel(1, 0), pixel(1, 1))))


def _convolve(x, kernel, padding):
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _pad_sides(x, before, after):
    return jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
