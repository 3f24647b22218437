"""The organs between the lungs: heart, gullet, fat, and the great vessels."""

import numpy as np

from lungseg_jax.data.phantom import great_vessels
from lungseg_jax.data.phantom.canvas import Canvas, Organ, blob, closed_curve
from lungseg_jax.data.phantom.chest_wall import MUSCLE_HU, SOFT_HU
from lungseg_jax.data.phantom.patient import SIDES, Section
from lungseg_jax.data.phantom.solids import egg

GULLET_AIR_HU = -960.0
PAD_HU = (-120.0, -70.0)
HERNIA_CHANCE, GOITRE_CHANCE, MASS_CHANCE = 0.06, 0.04, 0.04


def draw(section: Section) -> list[Organ]:
    """Return the organs, in the order of painting."""
    organs = [([_waist(section)], section.stream("waist fat").uniform(-115, 20))]
    organs += [([_prevertebral(section)], MUSCLE_HU)]
    organs += _gullet(section) + great_vessels.draw(section)
    organs += (
        _fat_pads(section)
        + _heart(section)
        + great_vessels.draw_hila(section, are_wide=True)
        + _masses(section)
        + _hernia(section)
    )
    return [(outlines, hu) for outlines, hu in organs if outlines]


def _waist(section: Section) -> np.ndarray:
    """Draw the tissue of the mediastinum, which is thin where the lungs meet."""
    rng = section.stream("waist")
    y = section.depth * np.array([-1.05, -0.8, -0.5, -0.15, 0.1, 0.3, 0.5])
    widths = np.array([0.03, 0.08, 0.18, 0.24, 0.2, 0.12, 0.16])
    widths = widths + 0.05 * (1 - section.progress(0.25, 0.4))
    narrow = rng.uniform(0.15, 2.5)
    widths[:2] *= max(narrow + section.wave(rng, 0.4), 0.1)
    middle = section.shift * np.array([0.3, 0.8, 1, 1, 1, 0.7, 0.2])
    left, right = widths * rng.uniform(0.85, 1.15, (2, 7))
    right[3:6] -= _recess(section) * np.array([0.06, 0.2, 0.14])
    outline = [[middle + left, y], [(middle - right)[::-1], y[::-1]]]
    return closed_curve(np.concatenate(outline, axis=1).T, 4)


def _recess(section: Section) -> float:
    """Return how far, from 0 to 1, the right lung reaches behind heart and bronchus."""
    rng = section.stream("recess")
    depth = rng.uniform(-0.3, 1.2) + section.wave(rng, 0.3)
    return float(np.clip(depth, 0, 1)) * section.progress(0.36, 0.5)


def _prevertebral(section: Section) -> np.ndarray:
    half = np.array(
        [[0.13, -0.2], [0.19, 0.0], [0.24, 0.14], [0.38, 0.27], [0.6, 0.45]]
    )
    half = half * [0.75 + 0.25 * section.progress(0, 0.4), 1]
    shape = np.concatenate([half, half[::-1] * [-1, 1]])
    return closed_curve(shape + [0, section.spine_y], 4)


def _gullet(section: Section) -> list[Organ]:
    rng = section.stream("gullet")
    at = np.array(
        [0.03 + section.shift + section.wave(rng, 0.015), 0.25 * section.depth]
    )
    size = 1 + section.wave(rng, 0.25)
    wall = blob(rng, at, np.array([0.065, 0.045]) * size)
    air = blob(rng, at, np.array([0.024, 0.017]) * size)
    is_open = rng.random() + section.wave(rng, 0.15) < 0.4
    organs = [([wall], SOFT_HU)]
    return organs + ([([air], GULLET_AIR_HU)] if is_open else [])


def _fat_pads(section: Section) -> list[Organ]:
    """Draw the fat that fills the angles between heart, chest wall and diaphragm."""
    organs = []
    for side in SIDES:
        rng = section.stream("fat pad", side)
        size = rng.uniform(0, 0.22 + 0.2 * section.patient.obesity)
        x, y, level = rng.uniform([0.2, -0.95, 0.68], [0.5, -0.5, 0.95])
        at = side * x + 0.1 + section.shift, y * section.depth, level
        radii = size, size * rng.uniform(0.5, 1.1), rng.uniform(0.06, 0.2)
        part = egg(section, rng, at, radii, wobble=0.2)
        hu = rng.uniform(*PAD_HU)
        if part is not None:
            organs.append(([part], hu))
    return organs


def _heart(section: Section) -> list[Organ]:
    """Draw the heart and its fat, with chambers that contrast medium makes visible."""
    rng = section.stream("heart")
    d, blood = section.depth, section.patient.blood_hu
    grown = section.progress(0.4, 0.78)
    right = np.array([[-0.95, 0.1], [-0.85, -0.55], [-0.35, -0.95], [0.3, -1.0]])
    left = np.array([[0.85, -0.75], [1.05, -0.2], [0.8, 0.4], [0.3, 0.85], [-0.4, 0.8]])
    shape = np.concatenate([right, left]) + rng.normal(0, 0.06, (9, 2))
    width, fat_hu = rng.uniform(0.85, 1.2), rng.uniform(-115, 30)
    end = rng.uniform(0.95, 1.08)
    pericardium = rng.uniform(1.03, 1.12)
    chambers = [
        (x, y, share * rng.uniform(0.85, 1.15, 2), int(rng.integers(2**30)))
        for x, y, share in ((-0.45, -0.2, 0.42), (0.3, -0.2, 0.44), (-0.05, 0.42, 0.38))
    ]
    if not 0.46 < section.level < end:
        return []
    bottom = 1 - section.progress(end - 0.3, end) * 0.75
    width = (0.22 + 0.19 * grown) * width
    center = np.array(
        [0.05 + 0.12 * grown + section.shift, (-0.28 - 0.22 * (1 - bottom)) * d]
    )
    shape = closed_curve(shape) * [
        width * bottom**0.5,
        (0.36 + 0.22 * grown) * d * bottom,
    ]
    radii = np.abs(shape).max(0)
    organs = [
        ([shape * pericardium + center], fat_hu),
        ([shape + center], 0.4 * blood + 25),
    ]
    for x, y, share, seed in chambers:
        part = blob(
            np.random.default_rng(seed),
            center + radii * [x, y],
            share * radii,
            wobble=0.12,
        )
        organs.append(([part], blood))
    return organs


def _masses(section: Section) -> list[Organ]:
    """Draw, in some patients, a goitre or a mass beside the mediastinum."""
    rng = section.stream("masses")
    spots = (
        (GOITRE_CHANCE, (0.1, -0.15, 0.08), (0.18, 0.2, 0.16)),
        (MASS_CHANCE, (0.15, -0.3, 0.4), (0.26, 0.28, 0.14)),
    )
    organs = []
    for chance, (x, y, level), most in spots:
        is_there, size = rng.random() < chance, rng.uniform(0.5, 1)
        at = rng.choice(SIDES) * x, y * section.depth, level
        part = egg(section, rng, at, size * np.array(most), wobble=0.2)
        hu = SOFT_HU + rng.uniform(-20, 60)
        if is_there and part is not None:
            organs.append(([part], hu))
    return organs


def _hernia(section: Section) -> list[Organ]:
    """Draw, in some patients, a hiatal hernia: stomach with gas behind the heart."""
    rng = section.stream("hernia")
    is_there, size = rng.random() < HERNIA_CHANCE, rng.uniform(0.13, 0.3)
    at = 0.05 + rng.normal(0, 0.08), 0.2 * section.depth, rng.uniform(0.8, 0.95)
    radii = np.array([size, 0.8 * size, 0.8 * size])
    wall = egg(section, np.random.default_rng(section.patient.seed), at, radii)
    lumen = egg(section, np.random.default_rng(section.patient.seed), at, radii - 0.025)
    food_hu, filled = rng.uniform(0, 60), rng.uniform(-0.7, 0.9)
    if not is_there or wall is None or lumen is None or section.level > 1.05:
        return []
    return [
        ([wall], SOFT_HU),
        ([lumen], food_hu),
        ([_float(section, lumen, filled)], -980.0),
    ]


def _float(section: Section, lumen: np.ndarray, filled: float) -> np.ndarray:
    """Return the part of a lumen above the level of its fluid, `filled` from -1 to 1."""
    gas, down = lumen.copy(), section.patient.down
    middle, half = lumen[:, 1].mean(), np.ptp(lumen[:, 1]) / 2
    surface = down * middle - half * filled
    gas[:, 1] = down * np.minimum(down * gas[:, 1], surface)
    return gas


def paint(canvas: Canvas, organs: list[Organ], inside: np.ndarray) -> None:
    """Paint organs where `inside`, a coverage uint8 `[size size]`, allows it."""
    for outlines, hu in organs:
        canvas.paint_union(outlines, hu, within=inside)
