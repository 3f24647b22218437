"""Max-pools of plain arrays `[b h w c]`, in forms that move little memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lungseg_jax.models.layouts import SkipConcat, upsample2x


def max_pool_same(x: jax.Array | SkipConcat) -> jax.Array | SkipConcat:
    """2x2 max-pool with stride 1 and SAME padding, which is below and to the right."""
    if isinstance(x, SkipConcat):
        top, below = x.coarse, max_with_next(x.coarse, 1)
        pixels = tuple((left, max_with_next(left, 2)) for left in (top, below))
        return SkipConcat(pixels, max_pool_same(x.fine))
    return max_with_next(max_with_next(x, 1), 2)


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
def max_with_next(x, axis):
    """The larger of each element and the next along an axis; the last is unchanged."""
    return jnp.maximum(*_with_next(x, axis))


def _max_with_next_forward(x, axis):
    return max_with_next(x, axis), x


def _max_with_next_backward(axis, x, g):
    is_first = jnp.greater_equal(*_with_next(x, axis))
    to_next = _pad(jnp.where(is_first, 0, g), axis, 1, 0, 0)
    return (
        jnp.where(is_first, g, 0) + jax.lax.slice_in_dim(to_next, 0, -1, axis=axis),
    )


max_with_next.defvjp(_max_with_next_forward, _max_with_next_backward)


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
