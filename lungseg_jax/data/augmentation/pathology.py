"""Diseases painted into the lung.

Every transform maps an image `[h w 1]` in Hounsfield units and its mask `[h w]` to a
changed image and mask; all of its randomness comes from the key.

The mask follows the convention of radiological lung labels: consolidated, collapsed and
destroyed lung, nodules and bullae are lung; pleural fluid is not.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from lungseg_jax.data.augmentation.draws import between, draw, log_between
from lungseg_jax.data.augmentation.fields import coordinates, smooth_noise
from lungseg_jax.data.augmentation.geometry import moments, one_lung

CONSOLIDATION_HU = (20.0, 90.0)  # as blood and muscle
AERATED_HU = -500.0  # what is below counts as air
GROUND_GLASS_HU = (-720.0, -350.0)
# Abramowitz et al. (AJR 192, 2009): 7 (deviation 9) in exudates, 10 (7) in transudates.
FLUID_HU = (-10.0, 25.0)
GRAIN_HU = (3.0, 25.0)  # deviation: fluid and tissue have the noise of the scan
COMPRESSED = (-0.2, 0.6)  # lung that fluid compresses, in volumes of fluid; or none
NODULE_HU = (-40.0, 100.0)
BULLA_HU = (-995.0, -930.0)
ORGAN_HU = (-100.0, 130.0)  # from fat to an enhanced liver
GAS_HU = (-1000.0, -850.0)
NODULE_RADIUS, BULLA_RADIUS = (0.02, 0.16), (0.04, 0.3)  # in half sides
BLOBS = 3  # nodules or bullae in a slice
RAGGED = (1.0, 0.7, 0.5, 0.35, 0.25)  # octaves of an edge
TEXTURE = (0.5, 0.5, 1.0, 1.0)

Example = tuple[jax.Array, jax.Array]


def consolidate(
    image: jax.Array, mask: jax.Array, key: jax.Array, *, least_air: float = 0.1
) -> Example:
    """Fill a part of the lungs, or all of one, with tissue; the mask keeps it.

    Nothing changes if less than a share `least_air` of the lungs would hold air. A network
    that has seen lungs without air, and no slice without lung, finds lung in the liver.
    """
    where, number_key, texture_key, grain_key = jax.random.split(key, 4)
    hu, texture, grain = draw(number_key, 3)
    weight = _affected_part(mask, where, most=1.5)
    air = mask * (1 - weight) * (image[..., 0] < AERATED_HU)
    weight *= air.sum() >= least_air * mask.sum()
    hu = between(hu, *CONSOLIDATION_HU)
    hu += 40 * texture * smooth_noise(texture_key, mask.shape, TEXTURE)
    hu += between(grain, *GRAIN_HU) * jax.random.normal(grain_key, mask.shape)
    return _paint(image, weight, hu), mask


def add_ground_glass(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Make a part of the lungs denser, with their vessels still visible."""
    where, number_key, texture_key = jax.random.split(key, 3)
    (hu,) = draw(number_key, 1)
    weight = _affected_part(mask, where, most=1.0)
    hu = between(hu, *GROUND_GLASS_HU)
    hu += 60 * smooth_noise(texture_key, mask.shape, TEXTURE)
    return _paint(image, weight, hu), mask


def add_effusion(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Fill the lowest part of one or both pleural spaces with fluid, which is not lung.

    Its surface is a crescent. Most of the time, it compresses the lung above it, which
    then has no air, is denser than the fluid, and remains in the mask.
    """
    number_key, grain_key = jax.random.split(key)
    both, side, angle, curve, share, hu, grain, compressed, dense_hu = draw(
        number_key, 9
    )
    lung = jnp.where(both < 0.4, mask, one_lung(mask, side))
    depth = _depth(lung, between(angle, -0.5, 0.5))
    center, deviation = moments(lung)
    across = (coordinates(mask.shape)[1] - center[1]) / deviation[1]
    depth += between(curve, 0.25, 0.7) * across**2
    share = log_between(share, 0.04, 0.7)
    more = 1 + jnp.maximum(between(compressed, *COMPRESSED), 0)
    fluid, airless = (
        lung * _above_quantile(depth, lung, part, edge=0.025)  # sharp
        for part in (share, share * more)
    )
    noise = between(grain, *GRAIN_HU) * jax.random.normal(grain_key, mask.shape)
    image = _paint(image, airless, between(dense_hu, *CONSOLIDATION_HU) + noise)
    hu = between(hu, *FLUID_HU) + noise
    image = image + (fluid * (hu - image[..., 0]))[..., None]
    return image, mask * (1 - fluid)


def add_nodules(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Add nodules and masses, most of which touch the wall; the mask keeps them."""
    where, number_key = jax.random.split(key)
    (hu,) = draw(number_key, 1)
    weight = _blobs(mask, where, NODULE_RADIUS)
    return _paint(image, weight, between(hu, *NODULE_HU)), mask


def add_bullae(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Replace parts of the lung by bubbles of air; the mask keeps them."""
    where, number_key = jax.random.split(key)
    (hu,) = draw(number_key, 1)
    weight = _blobs(mask, where, BULLA_RADIUS)
    thinner = jnp.minimum(between(hu, *BULLA_HU) - image[..., 0], 0)
    return image + (weight * thinner)[..., None], mask


def remove_lungs(image: jax.Array, mask: jax.Array, key: jax.Array) -> Example:
    """Show organs and gas where the lungs are, as in a slice below them: nothing is lung.

    Data of lungs may have no such slice, and a network that has seen consolidated lungs
    would find one in the liver.
    """
    gas_key, number_key, texture_key, grain_key = jax.random.split(key, 4)
    hu, texture, gas, has_gas = draw(number_key, 4)
    hu = between(hu, *ORGAN_HU)
    hu += 40 * texture * smooth_noise(texture_key, mask.shape, TEXTURE)
    hu += 20 * jax.random.normal(grain_key, mask.shape)
    bowel = _blobs(mask, gas_key, BULLA_RADIUS) * (has_gas < 0.5)
    hu += bowel * (between(gas, *GAS_HU) - hu)
    image = image + (mask * (hu - image[..., 0]))[..., None]
    return image, jnp.zeros_like(mask)


def _paint(image, weight, hu):
    """Blend values into an image where they are denser: vessels remain."""
    return image + (weight * jnp.maximum(hu - image[..., 0], 0))[..., None]


def _affected_part(mask, key, *, most):
    """Draw a part of the lungs, ragged or in one direction or both: `[h w]` in [0, 1].

    Args:
      mask: `[h w]`.
      key: of all draws.
      most: upper limit of its share of the lungs or of one lung; 1 or above is all.
    """
    number_key, field_key = jax.random.split(key)
    both, side, angle, up, mix, share = draw(number_key, 6)
    lung = jnp.where(both < 0.3, mask, one_lung(mask, side))
    # Mostly along gravity, for patients on their backs or fronts.
    angle = 1.3 * between(angle, -1, 1) ** 3 + jnp.pi * (up < 0.35)
    ragged = smooth_noise(field_key, mask.shape, RAGGED)
    mix = jnp.minimum(2 * mix, 1)  # the edge of every second is straight
    score = mix * _depth(lung, angle) + (1 - mix) * ragged
    share = between(share, 0.05, most)
    return lung * _above_quantile(score, lung, share, edge=0.05)


def _depth(lung, angle):
    """Return how low a pixel is, in standard deviations of the lung, `[h w]`."""
    y, x = coordinates(lung.shape)
    center, deviation = moments(lung)
    down = jnp.cos(angle) * (y - center[0]) / deviation[0]
    return down + jnp.sin(angle) * (x - center[1]) / deviation[1]


def _above_quantile(score, lung, share, *, edge):
    """Return a soft mask `[h w]` of the `share` of a lung with the highest scores.

    The quantile is that of a normal distribution; a share of 1 or above is all.
    """
    total = lung.sum() + 1e-6
    mean = (lung * score).sum() / total
    deviation = jnp.sqrt((lung * (score - mean) ** 2).sum() / total) + 1e-3
    cut = mean + deviation * ndtri(jnp.clip(1 - share, 1e-4, 1 - 1e-4))
    cut = jnp.where(share >= 1, -jnp.inf, cut)
    return jax.nn.sigmoid((score - cut) / edge)


def _blobs(mask, key, radius):
    """Draw round, uneven parts of the lung, most of them at its wall: `[h w]` in [0, 1].

    Centers are drawn on a grid of every fourth pixel.
    """
    number_key, at_key, shape_key = jax.random.split(key, 3)
    numbers = draw(number_key, 2 * BLOBS)
    coarse = mask[::4, ::4]
    reach = max(1, len(coarse) // 24)
    shifted = [jnp.roll(coarse, s * reach, axis) for s in (-1, 1) for axis in (0, 1)]
    wall = coarse - jnp.stack(shifted).min(0).clip(0, coarse)
    y, x = coordinates(mask.shape)
    uneven = 1 + 0.25 * smooth_noise(shape_key, mask.shape, (0.0, 1.0, 0.8))
    lotteries = jax.random.uniform(at_key, (BLOBS, *coarse.shape))
    blobs = jnp.zeros_like(mask)
    for lottery, place, size in zip(lotteries, numbers[:BLOBS], numbers[BLOBS:]):
        allowed = jnp.where(place < 0.6, wall + 0.01 * coarse, coarse)
        row, column = jnp.unravel_index(jnp.argmax(allowed * lottery), coarse.shape)
        dy, dx = y - y[4 * row, 0], x - x[0, 4 * column]
        size = log_between(size, *radius) * uneven
        distance = jnp.sqrt(dy**2 + dx**2) / size
        blobs = jnp.maximum(blobs, jax.nn.sigmoid((1 - distance) / 0.08))
    return mask * blobs
