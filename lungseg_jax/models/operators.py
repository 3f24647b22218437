"""The operations used by the blocks, in forms that move little memory.

Each is equivalent to its textbook layer; tests compare the two, forward and backward. On
two CPU cores the train step of the inception U-Net takes about a third of the
time of the textbook forms (`benchmarks/formulations.py --size 256`). Arrays are
`[b h w c]`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

# The upsampled pixels of a coarse one: ((top left, top right), (bottom left, ...)).
Pixels = tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class SkipConcat(NamedTuple):
    """The unevaluated concatenation of `upsample2x(coarse)` and `fine` along the channels.

    A convolution of it is the sum of two convolutions, so that the widest arrays of a
    U-Net are never written to memory.

    Attributes:
      coarse: `[b h w c]`, or four such arrays if the pixels of an upsampled one differ.
      fine: `[b 2h 2w d]`.
    """

    coarse: jax.Array | Pixels
    fine: jax.Array

    @property
    def channels(self) -> int:
        return jax.tree.leaves(self.coarse)[0].shape[-1] + self.fine.shape[-1]


def materialize(x: jax.Array | SkipConcat) -> jax.Array:
    """Evaluate a SkipConcat as `[b 2h 2w c+d]`; other arrays are returned unchanged."""
    if isinstance(x, SkipConcat):
        return jnp.concatenate([upsample2x(x.coarse), x.fine], axis=-1)
    return x


def upsample2x(coarse: jax.Array | Pixels) -> jax.Array:
    """Nearest-neighbor upsampling by two, `[b h w c] -> [b 2h 2w c]`.

    The four arrays of `Pixels` are interleaved instead.
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
        # One output channel leaves most of a convolution's lanes idle. Compute the
        # products of all taps at once, then their sum.
        taps = kernel[..., 0].transpose(2, 0, 1).reshape(1, 1, inputs, k * k)
        return _add_taps(conv2d(x, taps), k)
    if isinstance(x, SkipConcat):
        split = inputs - x.fine.shape[-1]
        fine = conv2d(x.fine, kernel[:, :, split:])
        kernel = kernel[:, :, :split]
        if k > 1:
            return _conv2d_of_upsampled(x.coarse, kernel) + fine
        return upsample2x(jax.tree.map(lambda a: conv2d(a, kernel), x.coarse)) + fine
    if k == 1:
        # A matrix product of flattened pixels: over three axes, XLA would sum the gradient
        # of the kernel from transposed copies.
        def product(x, kernel):
            b, h, w, _ = x.shape
            return (x.reshape(-1, inputs) @ kernel[0, 0]).reshape(b, h, w, outputs)

        return _apply_kernel(product, x, kernel)
    return _conv(x, kernel, "SAME")


def max_pool_same(x: jax.Array | SkipConcat) -> jax.Array | SkipConcat:
    """2x2 max-pool with stride 1 and SAME padding, which is below and to the right."""
    if isinstance(x, SkipConcat):
        top, below = x.coarse, _max_with_next(x.coarse, 1)
        pixels = tuple((left, _max_with_next(left, 2)) for left in (top, below))
        return SkipConcat(pixels, max_pool_same(x.fine))
    return _max_with_next(_max_with_next(x, 1), 2)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max-pool with stride 2, `[b 2h 2w c] -> [b h w c]`.

    The gradient of `nn.max_pool` is a select-and-scatter, which by itself makes the train
    step twice as slow on the CPU.
    """
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def _max_pool_forward(x):
    return max_pool(x), x


def _max_pool_backward(x, g):
    # Compare pixels with each other instead of with the maximum: XLA may recompute them
    # here with a different rounding, and then none would equal it.
    a, b, c, d = (x[:, i::2, j::2] for i, j in np.ndindex(2, 2))
    left = jnp.maximum(a, c) >= jnp.maximum(b, d)
    top = jnp.where(left, a >= c, b >= d)
    rows = jnp.where(top, g, 0), jnp.where(top, 0, g)
    pixels = tuple((jnp.where(left, r, 0), jnp.where(left, 0, r)) for r in rows)
    return (upsample2x(pixels),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_with_next(x, axis):
    """The larger of each element and the next along an axis; the last is unchanged."""
    return jnp.maximum(*_with_next(x, axis))


def _max_with_next_forward(x, axis):
    return _max_with_next(x, axis), x


def _max_with_next_backward(axis, x, g):
    is_first = jnp.greater_equal(*_with_next(x, axis))
    to_next = _pad(jnp.where(is_first, 0, g), axis, 1, 0, 0)
    return (
        jnp.where(is_first, g, 0) + jax.lax.slice_in_dim(to_next, 0, -1, axis=axis),
    )


_max_with_next.defvjp(_max_with_next_forward, _max_with_next_backward)


def _with_next(x, axis):
    """`x`, and `x` shifted by one along an axis, with -inf after the last element."""
    padded = jax.lax.platform_dependent(
        _pad(x, axis, 0, 1, -jnp.inf),
        # Otherwise each use pads again, element by element: 1.09 times the step's time.
        cpu=jax.lax.optimization_barrier,
        default=lambda padded: padded,
    )
    return tuple(
        jax.lax.slice_in_dim(padded, start, start + x.shape[axis], axis=axis)
        for start in (0, 1)
    )


def _pad(x, axis, before, after, fill):
    """`lax.pad` along an axis; unlike `jnp.concatenate`, it fuses."""
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (before, after, 0)
    return jax.lax.pad(x, jnp.array(fill, x.dtype), padding)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _add_taps(taps, k):
    """`[b h w k*k] -> [b h w 1]`: add the taps of a kernel, each at its own offset."""
    _, h, w, _ = taps.shape
    taps = _pad_sides(taps, k // 2, k // 2)
    offsets = np.ndindex(k, k)
    return sum(
        taps[:, i : i + h, j : j + w, n, None] for n, (i, j) in enumerate(offsets)
    )


def _add_taps_forward(taps, k):
    return _add_taps(taps, k), None


def _add_taps_backward(k, _, g):
    """The mirror image of the forward pass; autodiff would pad nine arrays, not one."""
    _, h, w, _ = g.shape
    g = _pad_sides(g, k // 2, k // 2)
    offsets = reversed(list(np.ndindex(k, k)))
    return (jnp.concatenate([g[:, i : i + h, j : j + w] for i, j in offsets], -1),)


_add_taps.defvjp(_add_taps_forward, _add_taps_backward)


def _conv2d_of_upsampled(x, kernel):
    """`conv2d(upsample2x(x), kernel)` without the upsampled array.

    Several of the k taps along an axis fall on the same coarse pixel and are added
    beforehand. For k = 3, that leaves 2 x 2 taps for each of the four pixels: 16 products
    instead of 36.
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
    # Pad separately: otherwise XLA's CPU backend is slow at the kernel's gradient.
    x = _pad_sides(x, -first[0], (1 + r) // 2)
    y = _conv(x, jnp.concatenate(quarters, axis=-1), "VALID")

    def pixel(row, column):
        top, left = first[row] - first[0], first[column] - first[0]
        n = (2 * row + column) * outputs
        return y[:, top : top + h, left : left + w, n : n + outputs]

    return upsample2x(((pixel(0, 0), pixel(0, 1)), (pixel(1, 0), pixel(1, 1))))


def _conv(x, kernel, padding):
    def product(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return _apply_kernel(product, x, kernel)


def _apply_kernel(product, x, kernel):
    """`product(x, kernel)` in the dtype of `x`.

    If the devices of the mesh in the context share the batch, each computes its part of
    the kernel's gradient, and the parts are added in the dtype of the kernel. Otherwise the
    compiler adds them before that cast, in bfloat16.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1 or x.dtype == kernel.dtype:
        return product(x, kernel.astype(x.dtype))

    def on_each_device(x, kernel):
        # Before the cast: the gradients are added where the kernel becomes varying.
        kernel = jax.lax.pcast(kernel, mesh.axis_names, to="varying")
        return product(x, kernel.astype(x.dtype))

    batch = PartitionSpec(mesh.axis_names)
    return jax.shard_map(
        on_each_device, in_specs=(batch, PartitionSpec()), out_specs=batch
    )(x, kernel)


def _pad_sides(x, before, after):
    return jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
