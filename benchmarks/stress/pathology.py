"""Changes of the lungs: density, and disease.

Each maps an image `[h w]` and a mask `[h w]`, with a level and a random generator, to an
image of the same size and a mask. Conventions: consolidated, ground-glass and collapsed
lung, nodules, masses and bullae are lung; pleural fluid is not.
"""

import cv2
import numpy as np

from . import anatomy
from .geometry import Changed

TISSUE_HU, TISSUE_NOISE_HU = 30, 25
VESSEL_HU = -150


def density(image, mask, median_hu, rng) -> Changed:
    """Move the median of the aerated lung to `median_hu`; vessels keep their values.

    Values below the median move with it, values between it and `VESSEL_HU` by less. The
    air around the body moves to -1000 HU: lung is never darker than all air.
    """
    room, _ = anatomy.room_air(image)
    is_air = ~mask & ~anatomy.padding(image)
    share = np.clip((-300 - image) / (-300 - room), 0, 1) * is_air
    image = image + (anatomy.AIR_HU - room) * share
    old = anatomy.parenchyma_hu(image, mask)
    move = median_hu - old
    keep = np.clip((image - old) / (VESSEL_HU - old), 0, 1)
    moved = image + move * (1 - keep)
    moved = np.maximum(moved, np.minimum(image, anatomy.LOWEST_HU))
    near = cv2.dilate(mask.astype(np.uint8), anatomy.disk(1)) > 0
    return np.where(near, moved, image).astype(np.float32), mask


def consolidation(image, mask, share, rng) -> Changed:
    """Fill the lower `share` of the larger lung, by its height, with soft tissue."""
    lung = anatomy.larger_lung(mask)
    rows = np.nonzero(lung.any(axis=1))[0]
    if not len(rows):
        return image, mask
    first = rows[0] + (1 - share) * (rows[-1] - rows[0])
    filled = lung & (np.arange(len(mask))[:, None] >= first)
    soft = TISSUE_HU + rng.normal(0, TISSUE_NOISE_HU, image.shape)
    return anatomy.blend(image, soft, anatomy.soften(filled, 2)), mask


def pneumonia(image, mask, share, rng) -> Changed:
    """Consolidate a `share` of both lungs in ragged patches with a halo."""
    opacity = _patches(mask, share, rng, gravity=0.6, width_mm=40)
    mm = anatomy.pixel_mm(mask.shape)
    halo = anatomy.soften(opacity, 5 / mm) * mask
    dense = anatomy.soften(opacity, 1.2 / mm) * mask
    glassy = np.maximum(
        image, -650 + 60 * anatomy.smooth_noise(mask.shape, 6 / mm, rng)
    )
    image = anatomy.blend(image, glassy, halo)
    bronchi = anatomy.smooth_noise(mask.shape, 5 / mm, rng) > 2.1  # still hold air
    soft = anatomy.tissue(image, 35, rng)
    soft = np.where(bronchi, -600, soft)
    return anatomy.blend(
        image, np.maximum(soft, image * ~bronchi - 1024 * bronchi), dense
    ), mask


def ground_glass(image, mask, share, rng) -> Changed:
    """Veil a `share` of both lungs at -450 HU, with the vessels still visible."""
    opacity = _patches(mask, share, rng, gravity=0.2, width_mm=40)
    mm = anatomy.pixel_mm(mask.shape)
    weight = anatomy.soften(opacity, 3 / mm) * mask
    old = anatomy.parenchyma_hu(image, mask)
    keep = np.clip((image - old) / (VESSEL_HU - old), 0, 1)
    veil = -450 + 40 * anatomy.smooth_noise(mask.shape, 6 / mm, rng) - old
    return (image + weight * veil * (1 - keep)).astype(np.float32), mask


def effusion(image, mask, share, rng) -> Changed:
    """Let fluid rise to a `share` of the height of one lung; fluid is not lung.

    The fluid is a crescent: it rises higher along the chest wall. A rim of compressed
    lung above it has the density of soft tissue and is lung.
    """
    lung = anatomy.one_lung(mask, rng)
    rows = np.nonzero(lung.any(axis=1))[0]
    if not len(rows):
        return image, mask
    mm = anatomy.pixel_mm(mask.shape)
    height = rows[-1] - rows[0] + 1
    above_bottom = (rows[-1] - np.arange(len(mask))[:, None]) / height
    wall_mm = anatomy.depth(lung) * mm
    climb = 0.45 * min(share, 0.5) * np.exp(-wall_mm / 12) * _is_lateral(lung, mask)
    surface = share + climb + 0.01 * anatomy.smooth_noise(mask.shape, 25 / mm, rng)
    fluid = lung & (above_bottom < surface)
    rim = lung & ~fluid & (anatomy.depth(~fluid) * mm < 5)
    compressed = anatomy.soften(rim, 1.5 / mm) * ~fluid
    image = anatomy.blend(image, anatomy.tissue(image, 20, rng), compressed)
    water = anatomy.tissue(image, 8, rng, texture=3)
    return anatomy.blend(image, water, anatomy.soften(fluid, 0.7)), mask & ~fluid


def collapse(image, mask, share, rng) -> Changed:
    """Take a `share` of the width of one lung: the mediastinum moves, density rises."""
    lung = anatomy.one_lung(mask, rng)
    rows, columns = anatomy.box(mask)
    middle = (columns.start + columns.stop) / 2
    own = anatomy.box(lung)[1]
    is_left = (own.start + own.stop) / 2 < middle
    width = own.stop - own.start
    move = share * width * (-1 if is_left else 1)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    # Nothing moves at the outer walls, at the sternum and at the spine.
    inner_left, inner_right = middle - 0.12 * width, middle + 0.12 * width
    across = np.interp(
        x,
        [columns.start, inner_left + move, inner_right + move, columns.stop],
        [0, 1, 1, 0],
    )
    height = max(1, rows.stop - rows.start)
    halfway = np.clip((y - rows.start) / height, 0, 1)
    along = np.clip(np.sin(np.pi * halfway), 0, 1) ** 0.7
    shift = (move * across * along).astype(np.float32)
    shift = cv2.GaussianBlur(shift, (0, 0), 0.02 * mask.shape[1])
    moved = cv2.remap(image, x - shift, y, cv2.INTER_LINEAR)
    moved_mask = (
        cv2.remap(mask.astype(np.float32), x - shift, y, cv2.INTER_LINEAR) > 0.5
    )
    moved_lung = cv2.remap(lung.astype(np.float32), x - shift, y, cv2.INTER_LINEAR)
    # The tissue of the lung stays, in less room.
    denser = (moved + 1000) / (1 - 0.9 * share) - 1000
    vessels = np.clip((moved + 300) / 200, 0, 1)
    return anatomy.blend(moved, denser, moved_lung * (1 - vessels)), moved_mask


def wall_nodules(image, mask, diameter_mm, rng) -> Changed:
    """Add nodules of soft tissue that touch the edge of the lung: three, or one mass."""
    mm = anatomy.pixel_mm(mask.shape)
    radius = diameter_mm / 2 / mm
    depth = anatomy.depth(mask)
    places = np.argwhere((depth > 0.3 * radius) & (depth < 0.7 * radius + 1))
    nodules = np.zeros_like(mask)
    if len(places):
        for center in places[
            rng.integers(len(places), size=3 if diameter_mm < 30 else 1)
        ]:
            nodules |= _lobed_distance(mask.shape, center, rng) < radius
    weight = anatomy.soften(nodules & mask, 0.8) * mask
    return anatomy.blend(image, anatomy.tissue(image, 35, rng), weight), mask


def bullae(image, mask, share, rng) -> Changed:
    """Replace a `share` of the lungs by subpleural cysts of air with thin walls."""
    mm = anatomy.pixel_mm(mask.shape)
    depth = anatomy.depth(mask)
    cysts, walls = np.zeros_like(mask), np.zeros_like(mask)
    typical = np.sqrt(share * mask.sum() / 4 / np.pi)
    for _ in range(40):
        if cysts.sum() >= share * mask.sum():
            break
        radius = max(2.0, typical * rng.uniform(0.5, 1.3))
        places = np.argwhere(mask & ~cysts & (depth < radius))
        if not len(places):
            break
        center = places[rng.integers(len(places))]
        distance = _lobed_distance(mask.shape, center, rng) / radius
        cyst = mask & (distance < 1)
        walls = walls & ~cyst | cyst & (distance > 1 - 1 / mm / radius)
        cysts |= cyst
    air = anatomy.room_air(image)[0] + anatomy.noise_like(image, rng)
    air = anatomy.blend(air, np.float32(-550), 0.8 * anatomy.soften(walls, 0.5))
    return anatomy.blend(image, air, anatomy.soften(cysts, 0.7) * mask), mask


def _patches(mask, share, rng, *, gravity: float, width_mm: float) -> np.ndarray:
    """Choose a share of a mask in ragged patches that prefer the lower part."""
    if not mask.any():
        return mask
    mm = anatomy.pixel_mm(mask.shape)
    rows = anatomy.box(mask)[0]
    low = (np.arange(len(mask))[:, None] - rows.start) / max(1, rows.stop - rows.start)
    score = 2 * gravity * low + (1 - gravity) * sum(
        weight * anatomy.smooth_noise(mask.shape, width_mm / mm / finer, rng)
        for weight, finer in ((1, 1), (0.4, 3), (0.2, 8))
    )
    return mask & (score >= np.quantile(score[mask], 1 - share))


def _is_lateral(lung: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return 1 at the outer side of a lung, falling to 0 at its inner side."""
    own, both = anatomy.box(lung)[1], anatomy.box(mask)[1]
    x = (np.arange(mask.shape[1]) - own.start) / max(1, own.stop - own.start)
    is_left = own.start + own.stop < both.start + both.stop
    return np.clip((1 - x if is_left else x) * 1.5 - 0.25, 0, 1)[None]


def _lobed_distance(shape, center, rng) -> np.ndarray:
    """Return a distance to a center whose circles are lobed."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    y, x = y - center[0], x - center[1]
    angle = np.arctan2(y, x)
    lobes = sum(
        rng.uniform(0, 0.07) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
        for k in (2, 3, 5)
    )
    return np.hypot(y, x) / (1 + lobes)
