"""Slices without lung, made from slices with lung. The masks are empty."""

import cv2
import numpy as np

from . import anatomy
from .geometry import Changed

GAS_HU, FAT_HU, MUSCLE_HU, LIVER_HU, STOOL_HU = -990, -100, 45, 60, -20


def without_lung(image, mask, name, rng) -> Changed:
    """Fill the thorax with an abdomen, or remove the patient: no pixel is lung."""
    return ABSENCES[name](image, mask, rng), np.zeros_like(mask)


def organs(image, mask, rng) -> np.ndarray:
    """Fill the thorax with fat, liver, spleen and loops of bowel without gas."""
    return _abdomen(image, mask, rng, loops=9, gas=0.0)


def bowel_gas(image, mask, rng) -> np.ndarray:
    """Fill the thorax as `organs` does, with gas in many loops."""
    return _abdomen(image, mask, rng, loops=14, gas=0.7)


def stomach_gas(image, mask, rng) -> np.ndarray:
    """Fill the thorax as `organs` does, with a stomach full of air on one side."""
    changed = _abdomen(image, mask, rng, loops=6, gas=0.2)
    depth = anatomy.depth(anatomy.one_lung(mask, rng))
    places = np.argwhere((depth > 0.6 * depth.max()) & mask)
    if len(places):
        radii = rng.uniform(28, 50, 2) / anatomy.pixel_mm(mask.shape)
        loop = places[rng.integers(len(places))], radii, 0.65
        _paint_loop(changed, _room(mask), _contents(image, rng), loop, rng)
    return changed


def couch(image, mask, rng) -> np.ndarray:
    """Remove the patient and leave the air and the couch."""
    filled = anatomy.fill_padding(image, rng)
    inside = anatomy.body(filled, mask).astype(np.uint8)
    skin = cv2.dilate(inside, anatomy.disk(round(5 / anatomy.pixel_mm(mask.shape)))) > 0
    return np.where(skin, anatomy.air(image, mask.shape, rng), filled)


ABSENCES = {
    "organs": organs,
    "bowel gas": bowel_gas,
    "stomach gas": stomach_gas,
    "couch": couch,
}


def _abdomen(image, mask, rng, *, loops: int, gas: float) -> np.ndarray:
    mm, room = anatomy.pixel_mm(mask.shape), _room(mask) | _airways(image, mask)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] / max(mask.shape)
    border = 0.35 * anatomy.smooth_noise(mask.shape, 60 / mm, rng)
    organ = (x < 0.5) & (border > -0.35) | (border + y > 0.7)
    inside = anatomy.blend(
        anatomy.tissue(image, FAT_HU, rng),
        anatomy.tissue(image, LIVER_HU, rng),
        anatomy.soften(organ, 1.0),
    )
    changed = anatomy.blend(image, inside, anatomy.soften(room, 1.0))
    contents, places = _contents(image, rng), np.argwhere(room)
    for center in places[rng.integers(len(places), size=loops)] if len(places) else ():
        radii = rng.uniform(8, 22, 2) / mm
        share = rng.uniform(0.35, 0.95) * (rng.uniform() < gas)
        _paint_loop(changed, room, contents, (center, radii, share), rng)
    return changed


def _room(mask: np.ndarray) -> np.ndarray:
    """Return the lungs with the fissures and airways between their parts closed."""
    radius = max(1, round(4 / anatomy.pixel_mm(mask.shape)))
    closed = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_CLOSE, anatomy.disk(radius)
    )
    return cv2.dilate(closed, anatomy.disk(1)) > 0


def _airways(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return dark pixels deep inside the body that are not lung."""
    mm = anatomy.pixel_mm(mask.shape)
    deep = anatomy.depth(anatomy.body(image, mask)) * mm > 15
    dark = deep & ~mask & (image < -200)
    return cv2.dilate(dark.astype(np.uint8), anatomy.disk(max(1, round(2 / mm)))) > 0


def _contents(image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw what loops of bowel are made of: wall, stool and gas, over the image."""
    return [
        anatomy.tissue(image, MUSCLE_HU, rng),
        anatomy.tissue(image, STOOL_HU, rng, texture=40),
        GAS_HU + anatomy.noise_like(image, rng),
    ]


def _paint_loop(image, room, contents, loop, rng) -> None:
    """Paint a loop of bowel into an image: a wall, stool, and gas above a level.

    Args:
      image: is changed.
      room: where loops may be.
      contents: of `_contents`.
      loop: its center and radii in pixels, and the share of its height with gas.
      rng: random generator.
    """
    center, radii, gas = loop
    reach = int(1.2 * max(radii)) + 6
    window = tuple(slice(max(0, c - reach), c + reach) for c in center)
    y, x = np.mgrid[: room.shape[0], : room.shape[1]][(slice(None), *window)]
    y, x = y - center[0], x - center[1]
    turn = rng.uniform(0, np.pi)
    a = (x * np.cos(turn) + y * np.sin(turn)) / radii[0]
    b = (y * np.cos(turn) - x * np.sin(turn)) / radii[1]
    mm = anatomy.pixel_mm(room.shape)
    r = np.hypot(a, b) + 0.05 * anatomy.smooth_noise(a.shape, 20 / mm, rng)
    lumen = room[window] & (r < 1 - 2.5 / mm / min(radii))
    rows = np.nonzero(lumen.any(axis=1))[0]
    top, bottom = (rows[0], rows[-1]) if len(rows) else (0, 0)
    level = top + gas * (bottom - top)
    bubble = lumen & (np.arange(len(lumen))[:, None] < level)
    for part, content in zip((room[window] & (r < 1), lumen, bubble), contents):
        weight = anatomy.soften(part, 0.7)
        image[window] = anatomy.blend(image[window], content[window], weight)
