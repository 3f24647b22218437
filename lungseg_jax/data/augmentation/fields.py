"""Random fields and filters of planes `[h w]`, by shifts and products of elements.

Matrix products are avoided: at a TPU's default precision they would round Hounsfield
units to 8 bits.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

TAPS = 6  # of a Gaussian filter, on either side of the center
SMOOTHED = 0.55**2  # what a quadratic B-spline leaves of the variance of a plane


def coordinates(shape: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Return the rows `[h 1]` and columns `[1 w]` of pixel centers, within -1 to 1."""
    h, w = shape
    return centered(h)[:, None], centered(w)[None, :]


def centered(n: int) -> jax.Array:
    """Return pixel centers along an axis, from just above -1 to just below 1."""
    return (2 * jnp.arange(n) + 1) / n - 1


def smooth_noise(
    key: jax.Array, shape: tuple[int, int], amplitudes: Sequence[float]
) -> jax.Array:
    """Draw a smooth random field `[h w]` of mean 0 and variance about 1.

    Args:
      key: of the draw.
      shape: h, w.
      amplitudes: of the octaves. The first has structures of about a quarter of the
        image, each further one structures of half the size.

    Each octave adds white noise to the field so far and doubles its resolution by the
    quadratic B-spline (Chaikin 1974).
    """
    doublings = max(0, math.ceil(math.log2(max(shape) / 6)))
    amplitudes = amplitudes[:doublings]  # a small image has the coarse octaves only
    # A doubling loses half a row at each end, so there is one more at each.
    side = math.ceil(max(shape) / 2**doublings)
    sides = [side * 2**i + 2 for i in range(len(amplitudes))]
    drawn = jax.random.normal(key, (sum(n * n for n in sides),))
    field, first = jnp.zeros((side + 2, side + 2)), 0
    for i in range(doublings):
        if i < len(amplitudes):
            n = sides[i]
            field += amplitudes[i] * drawn[first : first + n * n].reshape(n, n)
            first += n * n
        field = _double(_double(field).T).T
    norm = math.sqrt(SMOOTHED * sum(a * a for a in amplitudes)) or 1.0
    return field[: shape[0], : shape[1]] / norm


def gaussian(plane: jax.Array, sigma_px: jax.Array) -> jax.Array:
    """Apply a Gaussian filter to a plane `[h w]`; edges repeat.

    Args:
      plane: `[h w]`.
      sigma_px: standard deviation, at most a third of `TAPS`.
    """
    offsets = jnp.arange(-TAPS, TAPS + 1)
    weights = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma_px, 0.05)) ** 2)
    weights = weights / weights.sum()
    for axis in (0, 1):
        n = plane.shape[axis]
        widths = [(TAPS, TAPS) if a == axis else (0, 0) for a in (0, 1)]
        padded = jnp.pad(plane, widths, mode="edge")
        shifted = [
            jax.lax.slice_in_dim(padded, i, i + n, axis=axis)
            for i in range(2 * TAPS + 1)
        ]
        plane = sum(weight * part for weight, part in zip(weights, shifted))
    return plane


def _double(rows: jax.Array) -> jax.Array:
    """Replace `[n m]` by two rows between each and the next, `[2n-2 m]`."""
    upper, lower = rows[:-1], rows[1:]
    pairs = [0.75 * upper + 0.25 * lower, 0.25 * upper + 0.75 * lower]
    return jnp.stack(pairs, axis=1).reshape(2 * len(upper), -1)
