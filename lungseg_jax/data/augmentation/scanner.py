"""The scanner: density of the lung, sharpness, noise, streaks, calibration, padding.

Every transform maps an image `[h w 1]` in Hounsfield units and its mask `[h w]` to a
changed image and mask; all of its randomness comes from the key.
"""

import jax
import jax.numpy as jnp

from lungseg_jax.data.augmentation.draws import between, draw, log_between
from lungseg_jax.data.augmentation.fields import coordinates, gaussian, smooth_noise

AIR_HU, VESSEL_HU = -1000.0, -300.0
DENSITY = (0.6, 1.8)  # factor on how far lung is below VESSEL_HU
EMPTIEST_HU = -985.0  # of emphysema
BLUR_PX = (0.4, 2.0)
SHARPENING = (0.4, 3.0)
KERNEL_PX = (0.6, 1.2)  # of a sharp kernel
COARSE_PX = (1.3, 5.0)  # side of a coarse pixel
MOST_NOISE_HU = 160.0
STREAKS_HU = (30.0, 250.0)
OFFSET_HU = (-120.0, 120.0)
GAIN = (0.85, 1.12)  # on the distance from air
FIELD = (0.75, 1.15)  # radius of a field of view, in half sides
PADDING_HU = (-1070.0, -1000.0, 0.0)

Example = tuple[jax.Array, jax.Array]


def change_density(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Change how much air the lung holds, from expiration to emphysema."""
    number_key, field_key = jax.random.split(key)
    (how,) = draw(number_key, 1)
    plane = image[..., 0]
    uneven = 1 + 0.08 * smooth_noise(field_key, plane.shape, (1.0, 0.7))
    factor = log_between(how, *DENSITY)
    airy = VESSEL_HU + (plane - VESSEL_HU) * factor * uneven
    # Noise can be below EMPTIEST_HU already.
    airy = jnp.maximum(airy, jnp.minimum(plane, EMPTIEST_HU))
    airy = jnp.where(plane < VESSEL_HU, airy, plane)
    return (plane + mask * (airy - plane))[..., None], mask


def blur(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Blur, as a soft kernel or a thick slice does."""
    (sigma,) = draw(key, 1)
    return gaussian(image[..., 0], log_between(sigma, *BLUR_PX))[..., None], mask


def sharpen(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Sharpen, as a lung kernel does: noise and edges are amplified, and edges ring."""
    sigma, amount = draw(key, 2)
    plane = image[..., 0]
    detail = plane - gaussian(plane, between(sigma, *KERNEL_PX))
    return (plane + log_between(amount, *SHARPENING) * detail)[..., None], mask


def coarsen(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Show the image as one with larger pixels, interpolated linearly."""
    side, *phase = draw(key, 3)
    side = log_between(side, *COARSE_PX)
    # The average over a square has a standard deviation of 0.29 of its side.
    plane = gaussian(image[..., 0], 0.29 * side)
    for axis, n in enumerate(plane.shape):
        cell = jnp.arange(n) / side + phase[axis]
        before_px = (jnp.floor(cell) - phase[axis]) * side
        before, after = (
            jnp.clip(jnp.rint(px), 0, n - 1).astype(int)
            for px in (before_px, before_px + side)
        )
        share = jnp.expand_dims(cell - jnp.floor(cell), 1 - axis)
        plane = jnp.take(plane, before, axis) * (1 - share) + (
            jnp.take(plane, after, axis) * share
        )
    return plane[..., None], mask


def add_noise(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Add noise, mostly little, between white and grainy."""
    number_key, field_key = jax.random.split(key)
    amount, share = draw(number_key, 2)
    white = grainy = jax.random.normal(field_key, mask.shape)
    for axis in (0, 1):
        neighbors = jnp.roll(grainy, 1, axis) + jnp.roll(grainy, -1, axis)
        grainy = 0.5 * grainy + 0.25 * neighbors
    grainy = grainy * (8 / 3)  # its variance was (3/8)**2
    noise = MOST_NOISE_HU * amount**2 * (share * white + (1 - share) * grainy)
    return image + noise[..., None], mask


def add_streaks(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Add horizontal streaks, as of shoulders, or the rays of metal."""
    number_key, field_key = jax.random.split(key)
    kind, level, reach, down, across = draw(number_key, 5)
    y, x = coordinates(mask.shape)
    drawn = jax.random.normal(field_key, (len(y) + 180,))
    lines, rays = drawn[: len(y), None], drawn[len(y) :]
    lines = lines * jnp.exp(-((y / 0.6) ** 2))
    dy, dx = y - between(down, -0.6, 0.6), x - between(across, -0.6, 0.6)
    sector = jnp.floor((jnp.arctan2(dy, dx) / jnp.pi + 1) * 90).astype(int) % 180
    distance = jnp.sqrt(dy**2 + dx**2)
    rays = rays[sector] * jnp.exp(-distance / between(reach, 0.15, 0.6))
    pattern = jnp.where(kind < 0.5, lines, rays)
    # Streaks cross tissue, and are weaker in the air around the body.
    tissue = jnp.clip((image[..., 0] + 1000) / 700, 0.2, 1)
    streaks = log_between(level, *STREAKS_HU) * pattern * tissue
    return image + streaks[..., None], mask


def add_offset(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Shift all values."""
    (offset,) = draw(key, 1)
    return image + between(offset, *OFFSET_HU), mask


def change_gain(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Stretch all values around that of air."""
    (gain,) = draw(key, 1)
    return (image - AIR_HU) * between(gain, *GAIN) + AIR_HU, mask


def pad_field_of_view(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Set what is outside a circle or a strip to a constant, which is not lung."""
    shape, size, value = draw(key, 3)
    y, x = coordinates(mask.shape)
    distance = jnp.sqrt(jnp.where(shape < 0.7, y**2, 0.0) + x**2)
    outside = distance > between(size, *FIELD)
    value = jnp.array(PADDING_HU)[(value * len(PADDING_HU)).astype(int)]
    image = jnp.where(outside[..., None], value, image)
    return image, jnp.where(outside, 0.0, mask)
