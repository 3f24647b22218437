"""Convolutions of plain arrays `[b h w c]`, in forms that move little memory."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from lungseg_jax.models.layouts import SkipConcat, upsample2x


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

        return apply_kernel(product, x, kernel)
    return _conv(x, kernel, "SAME")


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

    return apply_kernel(product, x, kernel)


def apply_kernel(product: Callable, x: jax.Array, kernel: jax.Array) -> jax.Array:
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
