"""The chest wall around the thoracic cavity: skin, fat, muscles, bones."""

import numpy as np

from lungseg_jax.data.phantom.canvas import (
    Canvas,
    bezier,
    blob,
    closed_curve,
    rounded,
    stroke,
)
from lungseg_jax.data.phantom.patient import SIDES, Patient, Rng

SUBCUTANEOUS_GAS_HU = -700.0
FAT_HU = -100.0
SOFT_HU = 40.0
MUSCLE_HU = 50.0
CARTILAGE_HU = 110.0


def paint(canvas: Canvas, patient: Patient, rng: Rng) -> None:
    """Paint arms, skin, fat, muscles and bones, but not the spine."""
    if patient.level < 0.5 and rng.random() < 0.2:
        _paint_arms(canvas, patient, rng)
    wall = patient.cavity + patient.muscle
    canvas.paint(patient.skin, SOFT_HU)
    canvas.paint(patient.ring(wall + patient.fat - 0.012), FAT_HU)
    canvas.paint(patient.ring(wall), MUSCLE_HU)
    # Layers of fat separate the muscles.
    for share in rng.uniform(0.3, 0.95, 14):
        _paint_layer(canvas, patient, share, FAT_HU, rng)
    if rng.random() < 0.03:
        for share in rng.uniform(0.4, 1.3, 10):
            _paint_layer(canvas, patient, share, SUBCUTANEOUS_GAS_HU, rng)
    if patient.level < 0.6:
        _paint_scapulae(canvas, patient, rng)
    _paint_ribs(canvas, patient, rng)
    _paint_sternum(canvas, patient, rng)


def _arc(curve: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Return the part of a ring between two angles in degrees, `[16 2]`."""
    at = np.linspace(start, stop, 16) / 360 * len(curve)
    return curve[np.rint(at).astype(int) % len(curve)]


def _paint_layer(
    canvas: Canvas, patient: Patient, share: float, hu: float, rng: Rng
) -> None:
    """Paint a thin layer within the muscles, at a fraction `share` of their depth."""
    start = rng.uniform(0, 360)
    layer = patient.ring(patient.cavity + share * patient.muscle)
    arc = _arc(layer, start, start + rng.uniform(15, 60))
    arc = arc * np.linspace(1, rng.uniform(0.97, 1.03), len(arc))[:, None]
    pen = rounded(len(arc), rng.uniform(0.01, 0.03))
    canvas.paint(stroke(arc, pen), hu, 0.8)


def _paint_arms(canvas: Canvas, patient: Patient, rng: Rng) -> None:
    for side in SIDES:
        x = side * (abs(patient.skin[:, 0]).max() + rng.uniform(0.1, 0.2))
        y, radius = rng.uniform(-0.1, 0.25), rng.uniform(0.15, 0.22)
        layers = (
            (1.0, FAT_HU),
            (0.8, MUSCLE_HU),
            (0.3, patient.cortex_hu),
            (0.18, SOFT_HU),
        )
        for share, hu in layers:
            radii = share * radius, 1.2 * share * radius
            canvas.paint(blob(rng, (x, y), radii), hu)


def _paint_bone(
    canvas: Canvas, patient: Patient, line: np.ndarray, width: float, cortex: float
) -> None:
    """Paint a long bone: marrow in a shell of cortex with thickness `cortex`."""
    canvas.paint(stroke(line, rounded(len(line), width)), patient.cortex_hu)
    core = rounded(len(line) - 2, width - 2 * cortex)
    canvas.paint(stroke(line[1:-1], core), patient.marrow_hu)


def _paint_scapulae(canvas: Canvas, patient: Patient, rng: Rng) -> None:
    for side in SIDES:
        share = rng.uniform(0.5, 0.75)
        blade = patient.ring(patient.cavity + share * patient.muscle + 0.06)
        start, stop = rng.uniform(98, 118), rng.uniform(132, 152)
        line = _arc(blade, side * start, side * stop)
        tilt = np.linspace(1, rng.uniform(0.93, 1.04), len(line))
        bend = 0.05 * np.linspace(-1, 1, len(line)) ** 2
        _paint_bone(canvas, patient, line * (tilt + bend)[:, None], 0.045, 0.016)


def _paint_ribs(canvas: Canvas, patient: Patient, rng: Rng) -> None:
    """Paint ribs, each cut obliquely by the slice; towards the front, only cartilage."""
    for side in SIDES:
        start = rng.uniform(14, 32)
        while start < 158:
            length, width = rng.uniform(6, 22), rng.uniform(0.04, 0.07)
            lifted = patient.ring(patient.cavity + 0.02 + width / 2)
            line = _arc(lifted, side * start, side * (start + length))
            line = line * np.linspace(1, rng.uniform(1, 1.05), len(line))[:, None]
            if start > rng.uniform(30, 45):
                _paint_bone(canvas, patient, line, width, 0.016)
            else:
                canvas.paint(stroke(line, rounded(len(line), width)), CARTILAGE_HU)
            start += length + rng.uniform(7, 27)


def _paint_sternum(canvas: Canvas, patient: Patient, rng: Rng) -> None:
    front = np.array([-patient.depth * patient.cavity[0] - 0.055])
    shape = np.array(
        [
            [-0.17, -0.03],
            [0, -0.05],
            [0.17, -0.03],
            [0.12, 0.03],
            [0, 0.02],
            [-0.12, 0.03],
        ]
    )
    center = np.append(rng.normal(0, 0.02), front)
    shape = shape * [rng.uniform(0.6, 1.15), rng.uniform(0.9, 1.3)]
    canvas.paint(closed_curve(shape) + center, 0.8 * patient.cortex_hu)
    canvas.paint(closed_curve(shape * [0.88, 0.66]) + center, patient.marrow_hu)


def paint_spine(canvas: Canvas, patient: Patient, rng: Rng) -> None:
    """Paint a vertebra with its processes, and the rib heads beside it."""
    cortex, marrow = 0.75 * patient.cortex_hu, patient.marrow_hu
    scale, at = rng.uniform(0.85, 1.05), np.array([0, patient.spine_y])
    back = patient.skin[len(patient.skin) // 2, 1] - patient.spine_y
    tip = min(0.56, 0.9 * back / scale)
    parts = [([[0, 0.33], [0, 0.4], [rng.normal(0, 0.01), tip]], 0.07)]
    shows_process, shows_rib = rng.random(2) < [0.7, 0.5]
    for side in SIDES:
        parts.append(([[side * 0.13, 0.06], [side * 0.15, 0.32], [0, 0.37]], 0.075))
        if shows_process:
            parts.append(
                ([[side * 0.1, 0.16], [side * 0.18, 0.25], [side * 0.27, 0.3]], 0.09)
            )
        if shows_rib:
            parts.append(
                ([[side * 0.15, 0.03], [side * 0.24, 0.14], [side * 0.37, 0.25]], 0.06)
            )
    for controls, width in parts:
        line = bezier(np.array(controls) * scale + at)
        canvas.paint(stroke(line, rounded(12, width)), cortex)
        canvas.paint(stroke(line[1:-1], rounded(10, width - 0.035)), marrow)
    right = np.array([[0, -0.16], [0.13, -0.13], [0.17, 0], [0.12, 0.11], [0, 0.08]])
    body = closed_curve(np.concatenate([right, right[3:0:-1] * [-1, 1]]) * scale)
    canvas.paint(body + at, cortex)
    canvas.paint(body * 0.88 + at, marrow)
    for spot in rng.normal(0, 0.06, (14, 2)):
        hu = marrow + rng.normal(0, 70)
        canvas.paint(blob(rng, spot * scale + at, (0.03, 0.03)), hu, 0.5)
    canvas.paint(blob(rng, at + [0, 0.19 * scale], (0.085, 0.075)), SOFT_HU)
