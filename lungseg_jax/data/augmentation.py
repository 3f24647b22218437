"""Random augmentation of images and masks together, on the device.

To add an augmentation, write a transform, append a row to TRANSFORMS, and add its knobs to
`training.knobs`; docs/how-to/extend.md has an example.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def augment(
    images: jax.Array, masks: jax.Array, key: jax.Array, **knobs: Any
) -> tuple[jax.Array, jax.Array]:
    """Apply all TRANSFORMS in their order; the same key gives the same pixels.

    Args:
      images: `[b h w c]`.
      masks: `[b h w]`.
      key: the key of this step.
      **knobs: the options of the transforms; one that is left out is off.

    Returns:
      Images and masks of the same shapes.

    Raises:
      TypeError: a knob does not belong to any transform.
    """
    unknown = knobs.keys() - {k for t in TRANSFORMS.values() for k in t.knobs}
    if unknown:
        raise TypeError(f"unknown augmentation knobs: {', '.join(sorted(unknown))}")
    for i, transform in enumerate(TRANSFORMS.values()):
        options = {name: knobs[name] for name in transform.knobs if name in knobs}
        # The first transform uses the key itself, as in version 0.1, so that older runs
        # resume on the same pixels.
        own_key = jax.random.fold_in(key, i) if i else key
        images, masks = transform.apply(images, masks, own_key, **options)
    return images, masks


def affine(
    images: jax.Array,
    masks: jax.Array,
    key: jax.Array,
    *,
    zoom: float = 0.0,
    shift: float = 0.0,
    rotation_deg: float = 0.0,
    flip_lr: bool = False,
    flip_ud: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Apply one random affine map per example to its image and its mask.

    Args:
      images: `[b h w c]`.
      masks: `[b h w]`.
      key: random key of this step; the same key gives the same pixels.
      zoom: scale each axis independently by a factor from 1 - zoom to 1 + zoom.
      shift: move each axis by up to this fraction of its length.
      rotation_deg: rotate by up to this many degrees in either direction.
      flip_lr: mirror half of the examples left to right.
      flip_ud: mirror half of the examples top to bottom.

    Returns:
      Images and masks of the same shapes, interpolated bilinearly. Pixels from outside
      repeat the nearest pixel. With everything off, the arguments themselves.
    """
    if not (zoom or shift or rotation_deg or flip_lr or flip_ud):
        return images, masks
    keys = jax.random.split(key, len(images))
    planes = jnp.concatenate([images, masks[..., None].astype(images.dtype)], axis=-1)

    def augment_example(plane, key):
        matrix, offset = random_affine(
            key,
            zoom=zoom,
            shift=shift,
            rotation_deg=rotation_deg,
            flip_lr=flip_lr,
            flip_ud=flip_ud,
        )
        return warp(plane, matrix, offset)

    moved = jax.vmap(augment_example)(planes, keys)
    return moved[..., :-1], moved[..., -1]


def random_affine(
    key, *, zoom=0.0, shift=0.0, rotation_deg=0.0, flip_lr=False, flip_ud=False
):
    """Draw a map from output to input: matrix `[2 2]` and offset `[2]`.

    Positions are in units of half the side; axis 0 is rows (top to bottom), axis 1 is
    columns (left to right).
    """
    zoom_key, shift_key, turn_key, flip_key = jax.random.split(key, 4)
    scale = jax.random.uniform(zoom_key, (2,), minval=1 - zoom, maxval=1 + zoom)
    offset = jax.random.uniform(shift_key, (2,), minval=-2 * shift, maxval=2 * shift)
    angle = jnp.deg2rad(jax.random.uniform(turn_key, minval=-1.0) * rotation_deg)
    mirrored = jax.random.bernoulli(flip_key, shape=(2,))
    sign = jnp.where(mirrored & jnp.array([flip_ud, flip_lr]), -1.0, 1.0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotation = jnp.array([[cos, -sin], [sin, cos]])
    return rotation * (sign / scale), offset


def warp(plane: jax.Array, matrix: jax.Array, offset: jax.Array) -> jax.Array:
    """Sample `plane` `[h w c]` at matrix @ position + offset, with nearest fill."""
    h, w, _ = plane.shape
    rows, columns = jnp.meshgrid(_centred(h), _centred(w), indexing="ij")
    positions = jnp.stack([rows, columns], axis=-1) @ matrix.T + offset
    y = jnp.clip(_to_index(positions[..., 0], h), 0, h - 1)
    x = jnp.clip(_to_index(positions[..., 1], w), 0, w - 1)
    top, left = jnp.floor(y).astype(int), jnp.floor(x).astype(int)
    below, right = jnp.minimum(top + 1, h - 1), jnp.minimum(left + 1, w - 1)
    v, u = (y - top)[..., None], (x - left)[..., None]
    upper = plane[top, left] * (1 - u) + plane[top, right] * u
    lower = plane[below, left] * (1 - u) + plane[below, right] * u
    return upper * (1 - v) + lower * v


def _centred(n: int) -> jax.Array:
    """Return pixel centres along an axis, from just above -1 to just below 1."""
    return (2 * jnp.arange(n) + 1) / n - 1


def _to_index(position: jax.Array, n: int) -> jax.Array:
    return ((position + 1) * n - 1) / 2


@dataclasses.dataclass(frozen=True)
class Transform:
    """An augmentation.

    Attributes:
      apply: `(images, masks, key, **knobs) -> (images, masks)`.
      knobs: the names of its options, which are the knobs `augment.NAME`.
    """

    apply: Callable[..., tuple[jax.Array, jax.Array]]
    knobs: tuple[str, ...]


TRANSFORMS: dict[str, Transform] = {
    "affine": Transform(
        affine, ("zoom", "shift", "rotation_deg", "flip_lr", "flip_ud")
    ),
}
