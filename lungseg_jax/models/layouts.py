"""How a feature map is arranged in memory: plain, with folded rows, or in two parts.

A plain one is an array `[b h w c]`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Folded:
    """A feature map `[b h w c]` whose rows are folded: an array `[b h w/p c*p]`.

    p neighbors of a row are beside each other in every channel. On a TPU, which pads the
    channels of an array to 128, a wide map of few channels is smaller this way.

    Attributes:
      array: `[b h w/p c*p]`; on its last axis are the p pixels of the first channel, then
        those of the second, so that channels are split and concatenated as in plain maps.
      pixels: p, a power of two.
    """

    array: jax.Array
    pixels: int = struct.field(pytree_node=False)

    @property
    def channels(self) -> int:
        return self.array.shape[-1] // self.pixels


# A whole map, unlike `SkipConcat`.
FeatureMap = jax.Array | Folded
# The upsampled pixels of a coarse one: ((top left, top right), (bottom left, ...)).
Pixels = tuple[tuple[FeatureMap, FeatureMap], tuple[FeatureMap, FeatureMap]]


class SkipConcat(NamedTuple):
    """The unevaluated concatenation of `upsample2x(coarse)` and `fine` along the channels.

    A convolution of it is the sum of two convolutions, so that the widest arrays of a
    U-Net are never written to memory.

    Attributes:
      coarse: `[b h w c]`, or four such maps if the pixels of an upsampled one differ. If
        `fine` is folded, rows of the coarse ones are too, half as many pixels together.
      fine: `[b 2h 2w d]`.
    """

    coarse: FeatureMap | Pixels
    fine: FeatureMap

    @property
    def channels(self) -> int:
        some = self.coarse[0][0] if isinstance(self.coarse, tuple) else self.coarse
        return channels_of(some) + channels_of(self.fine)


def channels_of(x: FeatureMap | SkipConcat) -> int:
    return x.channels if isinstance(x, Folded | SkipConcat) else x.shape[-1]


def is_folded(x: FeatureMap | SkipConcat) -> bool:
    return isinstance(x.fine if isinstance(x, SkipConcat) else x, Folded)


def fold(x: jax.Array, pixels: int) -> Folded:
    """Fold the rows of a plain map, whose width `pixels` divides."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w // pixels, pixels, c).swapaxes(3, 4)
    return Folded(x.reshape(b, h, w // pixels, c * pixels), pixels)


def as_folded(x: FeatureMap) -> Folded:
    """Return a plain map as one with a single pixel in a fold."""
    return x if isinstance(x, Folded) else Folded(x, 1)


def unfold(x: FeatureMap) -> jax.Array:
    """Return the plain map; a plain one is returned unchanged."""
    if not isinstance(x, Folded):
        return x
    b, h, columns, _ = x.array.shape
    array = x.array.reshape(b, h, columns, x.channels, x.pixels).swapaxes(3, 4)
    return array.reshape(b, h, columns * x.pixels, x.channels)


def materialize(x: FeatureMap | SkipConcat) -> jax.Array:
    """Evaluate anything as a plain map; plain ones are returned unchanged."""
    if not isinstance(x, SkipConcat):
        return unfold(x)
    coarse = jax.tree.map(unfold, x.coarse, is_leaf=lambda a: isinstance(a, Folded))
    return jnp.concatenate([upsample2x(coarse), unfold(x.fine)], axis=-1)


def upsample2x(coarse: jax.Array | Pixels) -> jax.Array:
    """Nearest-neighbor upsampling by two of plain maps, `[b h w c] -> [b 2h 2w c]`.

    The four arrays of `Pixels` are interleaved instead.
    """
    if isinstance(coarse, tuple):
        x = jnp.stack([jnp.stack(row, axis=3) for row in coarse], axis=2)
        b, h, _, w, _, c = x.shape
    else:
        b, h, w, c = coarse.shape
        x = jnp.broadcast_to(coarse[:, :, None, :, None], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def interleave_rows(top: jax.Array, bottom: jax.Array) -> jax.Array:
    """Even and odd rows, `[b h w c]` each, as `[b 2h w c]`."""

    def spread(rows, before):  # stacked and reshaped, they would be copied
        axes = [(0, 0, 0), (before, 1 - before, 1), (0, 0, 0), (0, 0, 0)]
        return jax.lax.pad(rows, jnp.zeros((), rows.dtype), axes)

    return spread(top, 0) + spread(bottom, 1)


def split_channels(x: FeatureMap, parts: int) -> list[FeatureMap]:
    """Split a map into `parts` of equally many channels."""
    leaf, structure = jax.tree.flatten(x)
    arrays = jnp.split(*leaf, parts, axis=-1)
    return [structure.unflatten([array]) for array in arrays]


def concatenate_channels(*maps: FeatureMap) -> FeatureMap:
    """Concatenate maps of one layout along the channels."""
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=-1), *maps)
