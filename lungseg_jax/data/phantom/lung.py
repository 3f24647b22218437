"""The interior of the lungs: parenchyma, disease, fissures, nodules, vessels, bronchi."""

import cv2
import numpy as np

from lungseg_jax.data.phantom.canvas import Canvas, blob, fill, rounded, stroke
from lungseg_jax.data.phantom.chest_wall import SOFT_HU
from lungseg_jax.data.phantom.patient import SIDES, Patient, Rng

LUNG_HU = (-860.0, -740.0)
EMPHYSEMA_HU = -960.0
GROUND_GLASS_HU = (-620.0, -380.0)
CONSOLIDATION_HU = (-200.0, 10.0)
ATELECTASIS_HU = (-500.0, -100.0)
NODULE_HU = (-100.0, 60.0)
BRONCHUS_WALL_HU, BRONCHUS_AIR_HU = -150.0, -920.0

# The grid of smooth fields, independent of the size of the image.
_CELLS = 128

Strokes = tuple[np.ndarray, np.ndarray, np.ndarray]  # lines, widths, alphas


def paint(canvas: Canvas, patient: Patient, mask: np.ndarray, rng: Rng) -> None:
    """Paint the interior of the lungs where `mask`, uint8 `[size size]`, is not 0."""
    hu = _draw_parenchyma(canvas, patient, mask, rng)
    shape = canvas.image.shape
    lungs = canvas.overlay(cv2.resize(hu, shape, interpolation=cv2.INTER_CUBIC))
    _paint_fissures(lungs, patient, rng)
    _paint_trees(lungs, patient, mask, rng)
    _paint_bronchi(lungs, patient, rng)
    _paint_nodules(lungs, patient, rng)
    np.copyto(canvas.image, lungs.image, where=mask > 0)


def _draw_parenchyma(
    canvas: Canvas, patient: Patient, mask: np.ndarray, rng: Rng
) -> np.ndarray:
    """Draw the lung without its vessels, in HU, float32 `[_CELLS _CELLS]`."""
    xy = canvas.coarse_grid(_CELLS)
    low = patient.down * xy[..., 1] / patient.depth
    hu = rng.uniform(*LUNG_HU) + rng.uniform(10, 60) * low
    hu += 25 * _field(rng, 6) + 12 * _field(rng, 24)
    for disease, chance in (
        (_opacity, 0.3),
        (_atelectasis, 0.25),
        (_fibrosis, 0.07),
        (_emphysema, 0.12),
    ):
        if rng.random() < chance:
            hu = disease(hu, xy, low, rng)
    hu = hu + 18 * _field(rng, _CELLS)
    hu = _slope_edges(hu, canvas, patient, mask, rng)
    return hu.astype(np.float32)


def _slope_edges(
    hu: np.ndarray, canvas: Canvas, patient: Patient, mask: np.ndarray, rng: Rng
) -> np.ndarray:
    """Fade the edge where the pleura is oblique to the slice, mainly at the base."""
    air = cv2.resize(mask, hu.shape, interpolation=cv2.INTER_AREA)
    unit_cells = canvas.unit_px * _CELLS / canvas.size
    air = cv2.GaussianBlur(air, (0, 0), 0.04 * unit_cells) / 255
    oblique = np.clip(_field(rng, 4) - 0.8 + patient.progress(0.5, 0.9), 0, 1)
    return hu + 1.3 * oblique * (1 - air) * (SOFT_HU - hu)


def _field(rng: Rng, cells: int) -> np.ndarray:
    """Draw a smooth random field of about unit variance, from `cells` x `cells` values."""
    coarse = rng.standard_normal((cells, cells), np.float32)
    return cv2.resize(coarse, (_CELLS, _CELLS), interpolation=cv2.INTER_CUBIC)


def _opacity(hu: np.ndarray, xy: np.ndarray, low: np.ndarray, rng: Rng) -> np.ndarray:
    """Add ground glass or consolidation, as one to three ragged clouds."""
    is_dense = rng.random() < 0.5
    target = rng.uniform(*(CONSOLIDATION_HU if is_dense else GROUND_GLASS_HU))
    ragged = 0.3 * _field(rng, 12) + 0.2 * _field(rng, 40)
    for _ in range(rng.integers(1, 4)):
        center = [rng.choice(SIDES) * rng.uniform(0.4, 0.9), rng.uniform(-0.5, 0.6)]
        away = np.linalg.norm(xy - center, axis=-1) / rng.uniform(0.15, 0.45)
        hu = hu + np.clip((1.1 - away + ragged) * 2.5, 0, 1) * (target - hu)
    return hu


def _atelectasis(hu: np.ndarray, xy: np.ndarray, low: np.ndarray, rng: Rng):
    """Compress the lowest part of the lung."""
    edge, target = rng.uniform(0.5, 0.8), rng.uniform(*ATELECTASIS_HU)
    weight = np.clip((low - edge + 0.06 * _field(rng, 10)) * 6, 0, 1)
    return hu + weight * (target - hu)


def _fibrosis(hu: np.ndarray, xy: np.ndarray, low: np.ndarray, rng: Rng) -> np.ndarray:
    """Add a net of dense walls around small cysts, mostly at the back and the sides."""
    net = 800 * np.exp(-3 * np.abs(_field(rng, 36))) - 200
    weight = np.clip(
        (np.abs(xy[..., 0]) + 0.7 * low - 0.7 + 0.2 * _field(rng, 8)) * 3, 0, 1
    )
    return hu + weight * net


def _emphysema(hu: np.ndarray, xy: np.ndarray, low: np.ndarray, rng: Rng) -> np.ndarray:
    holes = np.clip(_field(rng, 30) + 0.6 * _field(rng, 8) - 0.5, 0, 1)
    return hu + holes * (EMPHYSEMA_HU - hu)


def _hilum(patient: Patient, side: int) -> np.ndarray:
    return np.array([side * 0.28 + patient.shift, 0.14 * patient.depth])


def _paint_fissures(lungs: Canvas, patient: Patient, rng: Rng) -> None:
    for side in SIDES:
        if rng.random() < 0.4:
            slope, bend = rng.uniform(-0.5, 0.5), rng.normal(0, 0.1)
            t = np.linspace(0, 1, 12)
            line = np.stack([side * t * 0.8, slope * t + bend * np.sin(np.pi * t)], 1)
            pen = stroke(line + _hilum(patient, side), 0.008)
            rise_hu = rng.uniform(40, 160)
            lungs.image += lungs.cover(pen) * np.float32(rise_hu / 255)


def _paint_nodules(lungs: Canvas, patient: Patient, rng: Rng) -> None:
    if rng.random() > 0.25:
        return
    for _ in range(rng.integers(1, 5)):
        radius, angle = rng.uniform(0.015, 0.06), rng.uniform(0, 2 * np.pi)
        at = np.sqrt(rng.random()) * np.array(
            [np.sin(angle), patient.depth * np.cos(angle)]
        )
        lungs.paint(
            blob(rng, at, (radius, radius), wobble=0.2), rng.uniform(*NODULE_HU)
        )


def _paint_bronchi(lungs: Canvas, patient: Patient, rng: Rng) -> None:
    """Paint small bronchi in cross-section: rings that are part of the lung."""
    for side in SIDES:
        for _ in range(rng.integers(1, 5)):
            away = rng.uniform(0.06, 0.3) * np.array([side, rng.uniform(-1, 1)])
            radii = rng.uniform(0.01, 0.02) * rng.uniform(1, 1.5, 2)
            ring = blob(rng, _hilum(patient, side) + away, radii)
            center = ring.mean(0)
            lungs.paint(
                center + (ring - center) * (1 + 0.008 / radii), BRONCHUS_WALL_HU
            )
            lungs.paint(ring, BRONCHUS_AIR_HU)


def _paint_trees(lungs: Canvas, patient: Patient, mask: np.ndarray, rng: Rng) -> None:
    """Paint vessels and, where the lung is dense, the bronchi that accompany them."""
    vessels, bronchi = [], []
    for side in SIDES:
        outwards = 0 if side > 0 else np.pi
        hilum = _hilum(patient, side)
        roots = rng.integers(3, 7)
        angles = outwards + rng.uniform(-1.4, 1.4, roots)
        vessels.append(_grow(hilum, angles, rng.uniform(0.03, 0.055, roots), rng))
        vessels.append(_scatter(hilum, outwards, rng))
        bronchi.append(_grow(hilum, angles + 0.15, np.full(roots, 0.035), rng))
    # Both fade before they reach the pleura.
    fade = cv2.distanceTransform(mask, cv2.DIST_L2, 3) / (0.05 * lungs.unit_px)
    fade = np.minimum(fade, 1) / np.float32(255)
    dense = np.clip((lungs.image + 350) / 200, 0, 1)
    blood_hu = 0.6 * patient.blood_hu + 10
    veins = _cover(lungs, vessels) * fade
    lungs.image += veins * np.maximum(blood_hu - lungs.image, 0)
    if dense.max() > 0:
        air = _cover(lungs, bronchi) * fade * dense
        lungs.image += air * (BRONCHUS_AIR_HU - lungs.image)


def _cover(lungs: Canvas, batches: list[Strokes]) -> np.ndarray:
    """Return the coverage by strokes, uint8 `[size size]`."""
    lines, widths, alpha = (np.concatenate(parts) for parts in zip(*batches))
    outlines = lungs.to_pixels(stroke(lines, widths))
    widest = widths.max(1)
    alpha = 255 * alpha * np.minimum(1, widest * lungs.unit_px / 1.5)
    layer = np.zeros(lungs.image.shape, np.uint8)
    # Thin strokes first, because filling replaces earlier values.
    for i in np.argsort(widest, kind="stable"):
        fill(layer, outlines[i], float(alpha[i]))
    return layer


def _wander(start: np.ndarray, headings: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return lines `[strokes 8 2]` from `start` `[strokes 2]`, by their headings."""
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=-1)
    steps *= lengths[:, None, None] / headings.shape[1]
    path = np.cumsum(steps, axis=1)
    return start[:, None] + np.concatenate([0 * path[:, :1], path], axis=1)


def _grow(
    hilum: np.ndarray, angles: np.ndarray, widths: np.ndarray, rng: Rng
) -> Strokes:
    """Grow wandering, tapering, forking lines, parts of which are outside the slice."""
    segments, starts = [], np.tile(hilum, (len(angles), 1))
    for _ in range(5):
        turns = rng.normal(0, 0.12, (len(angles), 7))
        headings = angles[:, None] + np.cumsum(turns, axis=1)
        lines = _wander(starts, headings, widths * rng.uniform(3, 7, len(angles)))
        thinner = widths * rng.uniform(0.55, 0.8, len(angles))
        pens = np.linspace(widths, thinner, 8, axis=1)
        pens[:, -1] *= 0.3  # a tip
        shown = rng.random(len(angles)) < 0.6
        alpha = rng.uniform(0.6, 1, len(angles))
        segments.append((lines[shown], pens[shown], alpha[shown]))
        forks = rng.uniform(0.15, 0.7, (2, len(angles))) * [[1], [-1]]
        grows = (rng.random((2, len(angles))) < 0.62).ravel()
        # Start before the tip, where the parent is still wide.
        starts = np.tile(lines[:, -2], (2, 1))[grows]
        angles = (headings[:, -1] + forks).ravel()[grows]
        widths = np.tile(thinner, 2)[grows]
    return tuple(np.concatenate(parts) for parts in zip(*segments))


def _scatter(hilum: np.ndarray, outwards: float, rng: Rng) -> Strokes:
    """Draw vessels in cross-section: dots and short pieces that radiate from the hilum."""
    pieces = 90
    angle = outwards + rng.uniform(-1.9, 1.9, pieces)
    reach = rng.random(pieces) ** 0.6
    away = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
    width = rng.uniform(0.005, 0.012, pieces)
    width += 0.022 * (1 - reach) * rng.random(pieces) ** 2
    bend = rng.normal(0, 0.6, pieces)[:, None] * np.linspace(0, 1, 7)
    headings = (angle + rng.normal(0, 0.4, pieces))[:, None] + bend
    lines = _wander(
        hilum + 0.75 * away, headings, width + rng.exponential(0.03, pieces)
    )
    pens = width[:, None] * rounded(8, 1.0)
    return lines, pens, rng.uniform(0.35, 1, pieces)
