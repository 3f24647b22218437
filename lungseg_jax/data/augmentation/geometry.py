"""Pose and anatomy: one random map from output to input positions per example.

Positions are in units of half the side, from -1 to 1. Maps are computed by multiplications
and additions of elements: a matrix product at a TPU's default precision moves a pixel of
512 by up to 0.95.
"""

import jax
import jax.numpy as jnp

from lungseg_jax.data.augmentation.draws import APART, between, draw, log_between
from lungseg_jax.data.augmentation.fields import coordinates

OUTSIDE_HU = -1000.0
CROP = (0.7, 1.25)  # half the side of a crop over that of the lungs' bounding box
COLLAPSED = (0.55, 0.85)  # scale at the center of a lung; its diameter: 0.69 to 0.94

Rows = Columns = jax.Array


def move(
    image: jax.Array,
    mask: jax.Array,
    key: jax.Array,
    *,
    zoom: float = 0.0,
    shift: float = 0.0,
    rotation_deg: float = 0.0,
    flip_lr: bool = False,
    flip_ud: bool = False,
    scale: float = 0.0,
    turn: float = 0.0,
    crop: float = 0.0,
    collapse: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Move an image and its mask by one random map.

    Args:
      image: `[h w c]`.
      mask: `[h w]`.
      key: the same key gives the same pixels.
      zoom: scale each axis independently by a factor from 1 - zoom to 1 + zoom.
      shift: move each axis by up to this fraction of its length.
      rotation_deg: rotate by up to this many degrees in either direction.
      flip_lr: mirror half of the examples left to right.
      flip_ud: mirror half of the examples top to bottom.
      scale: magnify or shrink by up to this factor, above 1; what was outside the image
        is air.
      turn: probability of a rotation by any angle.
      crop: probability of a field of view that is tight around both lungs or one.
      collapse: probability that one lung is smaller, with its surroundings pulled in.

    Returns:
      Image and mask of the same shapes, interpolated bilinearly. Without `scale`, pixels
      from outside repeat the nearest pixel.
    """
    matrix, offset = random_affine(
        key,
        zoom=zoom,
        shift=shift,
        rotation_deg=rotation_deg,
        flip_lr=flip_lr,
        flip_ud=flip_ud,
    )
    numbers = draw(jax.random.fold_in(key, APART), 10)
    if scale > 1:
        matrix = matrix / log_between(numbers[0], 1 / scale, scale)
    if turn:
        matrix = _random_turn(matrix, numbers[1:3], turn)
    if crop:
        matrix, offset = _random_crop(matrix, offset, mask, numbers[3:7], crop)
    rows, columns = positions(matrix, offset, mask.shape)
    if collapse:
        rows, columns = _collapse(rows, columns, mask, numbers[7:], collapse)
    outside = (jnp.abs(rows) > 1) | (jnp.abs(columns) > 1)
    planes = jnp.concatenate([image, mask[..., None].astype(image.dtype)], axis=-1)
    moved = sample(planes, rows, columns)
    if scale > 1:
        air = jnp.full(planes.shape[-1], OUTSIDE_HU, planes.dtype).at[-1].set(0)
        moved = jnp.where(outside[..., None], air, moved)
    return moved[..., :-1], moved[..., -1]


def random_affine(
    key: jax.Array,
    *,
    zoom: float,
    shift: float,
    rotation_deg: float,
    flip_lr: bool,
    flip_ud: bool,
) -> tuple[jax.Array, jax.Array]:
    """Draw a map from output to input: matrix `[2 2]` and offset `[2]`.

    Axis 0 is rows (top to bottom), axis 1 is columns (left to right). For the arguments,
    see `move`.
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


def positions(
    matrix: jax.Array, offset: jax.Array, shape: tuple[int, int]
) -> tuple[Rows, Columns]:
    """Return the input positions, rows and columns `[h w]`, of the output's pixels."""
    y, x = coordinates(shape)
    (yy, yx), (xy, xx) = matrix
    return y * yy + x * yx + offset[0], y * xy + x * xx + offset[1]


def sample(planes: jax.Array, rows: Rows, columns: Columns) -> jax.Array:
    """Sample `planes` `[h w c]` bilinearly at positions; outside is the nearest pixel."""
    h, w, _ = planes.shape
    y = jnp.clip(_to_index(rows, h), 0, h - 1)
    x = jnp.clip(_to_index(columns, w), 0, w - 1)
    top, left = jnp.floor(y).astype(int), jnp.floor(x).astype(int)
    below, right = jnp.minimum(top + 1, h - 1), jnp.minimum(left + 1, w - 1)
    v, u = (y - top)[..., None], (x - left)[..., None]
    upper = planes[top, left] * (1 - u) + planes[top, right] * u
    lower = planes[below, left] * (1 - u) + planes[below, right] * u
    return upper * (1 - v) + lower * v


def one_lung(mask: jax.Array, side: jax.Array) -> jax.Array:
    """Return the part of a mask `[h w]` left (`side` < 0.5) or right of its center."""
    _, x = coordinates(mask.shape)
    center = (mask * x).sum() / (mask.sum() + 1e-6)
    return jnp.where((x < center) == (side < 0.5), mask, 0.0)


def moments(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the center `[2]` and the standard deviations `[2]` of a mask `[h w]`."""
    y, x = coordinates(mask.shape)
    total = mask.sum() + 1e-6
    cy, cx = (mask * y).sum() / total, (mask * x).sum() / total
    vy, vx = (mask * (y - cy) ** 2).sum() / total, (mask * (x - cx) ** 2).sum() / total
    return jnp.stack([cy, cx]), jnp.sqrt(jnp.stack([vy, vx])) + 1e-3


def _random_turn(matrix, numbers, probability):
    chance, angle = numbers
    angle = jnp.where(chance < probability, 2 * jnp.pi * angle, 0.0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    top, bottom = matrix
    return jnp.stack([top * cos + bottom * sin, bottom * cos - top * sin])


def _random_crop(matrix, offset, mask, numbers, probability):
    """Replace scale and offset of a map by those of a box around the lungs."""
    chance, both, side, size = numbers
    target = jnp.where(both < 0.4, mask, one_lung(mask, side))
    center, deviation = moments(target)
    # An ellipse reaches two standard deviations from its center.
    half = 2 * deviation.max() * between(size, *CROP)
    on = (chance < probability) & (target.sum() > 0.005 * mask.size)
    (yy, yx), (xy, xx) = matrix
    cropped = matrix * (half / jnp.sqrt(jnp.abs(yy * xx - yx * xy)))
    return jnp.where(on, cropped, matrix), jnp.where(on, center, offset)


def _collapse(rows, columns, mask, numbers, probability):
    """Pinch the input around one lung: distances r to its center become r f(r)."""
    chance, side, size = numbers
    lung = one_lung(mask, side)
    center, deviation = moments(lung)
    dy, dx = rows - center[0], columns - center[1]
    # The lung reaches to about 2/3 of this radius.
    r = jnp.sqrt((dy / (3 * deviation[0])) ** 2 + (dx / (3 * deviation[1])) ** 2)
    inverse = 1 / between(size, *COLLAPSED)
    factor = inverse + (1 - inverse) * jnp.minimum(r, 1)  # monotone for inverse <= 2
    on = (chance < probability) & (lung.sum() > 0.005 * mask.size)
    factor = jnp.where(on, factor, 1.0)
    return center[0] + dy * factor, center[1] + dx * factor


def _to_index(position: jax.Array, n: int) -> jax.Array:
    return ((position + 1) * n - 1) / 2
