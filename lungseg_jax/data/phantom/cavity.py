"""The contents of the thoracic cavity around the lungs, which give them their shape."""

import cv2
import numpy as np

from lungseg_jax.data.phantom.canvas import (
    Canvas,
    bezier,
    blob,
    closed_curve,
    fill,
    rounded,
    stroke,
)
from lungseg_jax.data.phantom.chest_wall import (
    FAT_HU,
    MUSCLE_HU,
    SOFT_HU,
    paint_spine,
)
from lungseg_jax.data.phantom.patient import SIDES, Patient, Rng

BOWEL_GAS_HU = -985.0
AIRWAY_HU = -960.0
FLUID_HU = 8.0
LIVER_HU = 60.0

Organ = tuple[np.ndarray, float]  # outline [points 2], HU


def paint(canvas: Canvas, patient: Patient, rng: Rng) -> np.ndarray:
    """Paint the thoracic cavity without the lungs.

    Returns:
      The mask of the lungs, uint8 `[size size]` in {0, 255}, with one to three parts.
    """
    canvas.paint(patient.ring(patient.cavity + 0.012), FAT_HU)
    inside = canvas.cover(patient.ring(patient.cavity))
    aired = _paint_fluid(canvas, patient, inside, rng)
    mediastinum = _draw_mediastinum(patient, rng)
    domes = _draw_below_diaphragm(patient, rng)
    airways = _draw_airways(patient, rng)
    tubes = [(wall, SOFT_HU) for _, wall in airways]
    tubes += [(lumen, AIRWAY_HU) for lumen, _ in airways]
    for outline, hu in mediastinum + tubes + domes:
        canvas.paint(outline, hu, within=inside)
    paint_spine(canvas, patient, rng)
    solid = canvas.cover(*(outline for outline, _ in mediastinum + domes))
    # A blur before the threshold rounds corners, as the pleura does.
    blur_px = max(0.012 * canvas.unit_px, 0.3)
    field = cv2.GaussianBlur(cv2.subtract(aired, solid), (0, 0), blur_px)
    field = cv2.min(field, inside)
    for _, wall in airways:
        fill(field, canvas.to_pixels(wall), 0)
    lungs = np.where(field > 127, 255, 0).astype(np.uint8)
    return _largest(lungs, at_least=0.004 * canvas.size**2, at_most=3)


def _largest(mask: np.ndarray, at_least: float, at_most: int) -> np.ndarray:
    """Keep the largest connected parts of a mask, except those with too few pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0  # the background
    best = np.argsort(area)[::-1][:at_most]
    keep = np.zeros(len(area), np.uint8)
    keep[best[area[best] >= at_least]] = 255
    return keep[labels]


def _paint_fluid(
    canvas: Canvas, patient: Patient, inside: np.ndarray, rng: Rng
) -> np.ndarray:
    """Paint, in some patients, a crescent of fluid at the lowest part of one side.

    Returns:
      The part of `inside` without fluid; both are coverages, uint8 `[size size]`.
    """
    if rng.random() > 0.12:
        return inside
    side, thick = rng.choice(SIDES), rng.uniform(0.08, 0.4)
    lifted = patient.ring(patient.cavity * 0.985)
    lifted = lifted - [side * 0.2 * thick, patient.down * thick]
    half = np.array([[0, -3], [3 * side, -3], [3 * side, 3], [0, 3]])
    wet = cv2.min(cv2.subtract(inside, canvas.cover(lifted)), canvas.cover(half))
    canvas.paint(patient.ring(patient.cavity), FLUID_HU, within=wet)
    return cv2.subtract(inside, wet)


def _draw_mediastinum(patient: Patient, rng: Rng) -> list[Organ]:
    """Draw the organs between the lungs, in the order of painting."""
    d, dx, blood = patient.depth, patient.shift, patient.blood_hu
    spine = np.array(
        [[0.13, -0.2], [0.19, 0.0], [0.24, 0.14], [0.38, 0.27], [0.6, 0.45]]
    )
    spine = np.concatenate([spine, spine[::-1] * [-1, 1]]) + [0, patient.spine_y]
    aorta_x = rng.uniform(0.12, 0.18) + 0.5 * dx - 0.06 * patient.progress(0.7, 1)
    aorta_radius = rng.uniform(0.085, 0.12)
    gullet = np.array([0.03 + dx, 0.24 * d])
    organs = [
        (_draw_waist(patient, rng), rng.uniform(-90, 20)),
        (closed_curve(spine, 4), MUSCLE_HU),
        (blob(rng, gullet, (0.065, 0.045)), SOFT_HU),
    ]
    if patient.level > 0.36:
        radii = aorta_radius, aorta_radius
        organs.append((blob(rng, (aorta_x, 0.36 * d), radii, wobble=0.02), blood))
    if rng.random() < 0.4:
        organs.append((blob(rng, gullet, (0.022, 0.015)), AIRWAY_HU))
    if 0.42 < patient.level < 0.8:
        for side in SIDES:
            hilum = np.array([side * rng.uniform(0.2, 0.28) + dx, 0.12 * d])
            radii = rng.uniform(0.05, 0.1, 2)
            organs.append((blob(rng, hilum, radii, wobble=0.2), blood))
    if patient.level > 0.55:
        return organs + _draw_heart(patient, rng)
    if patient.level > 0.36:
        return organs + _draw_great_vessels(patient, rng)
    return organs + _draw_arch(patient, rng)


def _draw_waist(patient: Patient, rng: Rng) -> np.ndarray:
    """Draw the tissue of the mediastinum, which is thin where the lungs meet."""
    y = patient.depth * np.array([-1.05, -0.8, -0.5, -0.15, 0.1, 0.3, 0.5])
    widths = np.array([0.03, 0.08, 0.18, 0.24, 0.2, 0.12, 0.16])
    widths = widths + 0.05 * (1 - patient.progress(0.25, 0.4))
    widths[:2] *= rng.uniform(0.15, 2.5)
    middle = patient.shift * np.array([0.3, 0.8, 1, 1, 1, 0.7, 0.2])
    left, right = widths * rng.uniform(0.85, 1.15, (2, 7))
    outline = [[middle + left, y], [(middle - right)[::-1], y[::-1]]]
    return closed_curve(np.concatenate(outline, axis=1).T, 4)


def _draw_heart(patient: Patient, rng: Rng) -> list[Organ]:
    """Draw the heart and its fat, with chambers that contrast medium makes visible."""
    d, blood = patient.depth, patient.blood_hu
    grown = patient.progress(0.35, 0.75)
    center = np.array([0.05 + 0.12 * grown + patient.shift, -0.28 * d])
    right = np.array([[-0.95, 0.1], [-0.85, -0.55], [-0.35, -0.95], [0.3, -1.0]])
    left = np.array([[0.85, -0.75], [1.05, -0.2], [0.8, 0.4], [0.3, 0.85], [-0.4, 0.8]])
    width = (0.22 + 0.19 * grown) * rng.uniform(0.85, 1.15)
    shape = np.concatenate([right, left]) + rng.normal(0, 0.06, (9, 2))
    shape = closed_curve(shape) * [width, (0.36 + 0.22 * grown) * d]
    radii = np.abs(shape).max(0)
    organs = [
        (shape * 1.05 + center, rng.uniform(-80, 30)),
        (shape + center, 0.4 * blood + 25),
    ]
    for x, y, share in ((-0.45, -0.2, 0.42), (0.3, -0.2, 0.44), (-0.05, 0.42, 0.38)):
        chamber = share * radii * rng.uniform(0.85, 1.15, 2)
        at = center + radii * [x, y]
        organs.append((blob(rng, at, chamber, wobble=0.12), blood))
    return organs


def _draw_great_vessels(patient: Patient, rng: Rng) -> list[Organ]:
    """Draw ascending aorta, vena cava and pulmonary artery, at the level of the hila."""
    blood, scale, move = patient.blood_hu, [1, patient.depth], [patient.shift, 0]
    trunk = [[0.22, -0.42], [0.18, -0.2], [0.02, -0.04], [-0.24, 0.04]]
    if rng.random() < 0.5:
        trunk = [[0.12, -0.5], [0.2, -0.25], [0.27, 0.0], [0.36, 0.15]]
    trunk = stroke(bezier(np.array(trunk) * scale + move), rounded(12, 0.17))
    ascending = blob(
        rng, np.array([-0.06, -0.42]) * scale + move, (0.13, 0.13), wobble=0.02
    )
    cava = blob(rng, np.array([-0.19, -0.25]) * scale + move, (0.07, 0.08))
    return [
        (trunk, blood * rng.uniform(1, 1.2)),
        (ascending, blood),
        (cava, blood * rng.uniform(1, 1.6)),
    ]


def _draw_arch(patient: Patient, rng: Rng) -> list[Organ]:
    """Draw the aortic arch above the hila or, further up, the arteries that leave it."""
    blood, scale, move = patient.blood_hu, [1, patient.depth], [patient.shift, 0]
    if patient.level > 0.26:
        line = [[-0.08, -0.42], [0.06, -0.28], [0.16, 0.02], [0.15, 0.36]]
        return [
            (stroke(bezier(np.array(line) * scale + move), rounded(12, 0.2)), blood)
        ]
    spots = [[-0.1, -0.3], [0.03, -0.26], [0.14, -0.1], [-0.2, -0.4], [0.15, -0.42]]
    return [
        (blob(rng, p * scale + move, (0.055, 0.05)), blood) for p in np.array(spots)
    ]


def _draw_below_diaphragm(patient: Patient, rng: Rng) -> list[Organ]:
    """Draw the domes below the lungs: the liver, and stomach or spleen."""
    organs = []
    starts = {-1: rng.uniform(0.6, 0.9), 1: rng.uniform(0.7, 1.0)}
    if rng.random() < 0.08:  # a raised hemidiaphragm leaves little lung
        starts[rng.choice(SIDES)] = 0.2
    for side, start in starts.items():
        rise = patient.progress(start, start + 0.45)
        if rise < 0.04:
            continue
        center = np.array([side * (0.5 + 0.04 * rise), -0.05 * patient.depth])
        radii = np.array([0.42, 0.75 * patient.depth]) * rise**0.5
        dome = blob(rng, center, radii, wobble=0.08)
        organs.append((dome, LIVER_HU + 0.3 * (patient.blood_hu - SOFT_HU)))
        if side > 0 and rise > 0.15 and rng.random() < 0.8:
            organs.append((_draw_gas(patient, center, radii, rng), BOWEL_GAS_HU))
    return organs


def _draw_gas(patient: Patient, center: np.ndarray, radii: np.ndarray, rng: Rng):
    """Draw gas in the stomach or colon, floating above a level of fluid."""
    gas = blob(rng, center, radii * rng.uniform(0.6, 0.85), wobble=0.1)
    surface = patient.down * center[1] + radii[1] * rng.uniform(-0.3, 0.5)
    gas[:, 1] = patient.down * np.minimum(patient.down * gas[:, 1], surface)
    return gas


def _draw_airways(patient: Patient, rng: Rng) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw the large airways, which are air but not lung, as (lumen, lumen and wall)."""
    middle = np.array([patient.shift, 0.1 * patient.depth])
    wide, level = rng.uniform(0.05, 0.075), patient.level
    if level < 0.38:
        return [_tube(rng, middle, (wide, wide * rng.uniform(0.85, 1.15)), 0.0)]
    if level < 0.44:
        return [_tube(rng, middle, (1.9 * wide, wide), 0.0)]
    tubes = []
    for side in SIDES:
        if level < 0.54:
            at = middle + [side * rng.uniform(0.15, 0.2), 0.04]
            tilt = side * rng.uniform(0.1, 0.5)
            tubes.append(_tube(rng, at, (1.6 * wide, 0.65 * wide), tilt))
        elif level < 0.8:
            at = middle + [side * rng.uniform(0.26, 0.34), rng.uniform(0.02, 0.12)]
            tubes.append(_tube(rng, at, (0.45 * wide, 0.45 * wide), 0.0))
    return tubes


def _tube(rng: Rng, center: np.ndarray, radii: tuple[float, float], tilt: float):
    lumen = blob(rng, center, radii, tilt=tilt)
    return lumen, center + (lumen - center) * (1 + 0.018 / min(radii))
