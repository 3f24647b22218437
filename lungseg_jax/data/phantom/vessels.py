"""The trees of vessels and bronchi within the lungs, in three dimensions."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from lungseg_jax.data.phantom.canvas import Canvas, fill
from lungseg_jax.data.phantom.patient import SIDES, Patient, Rng, Section

GENERATIONS, STEPS = 8, 5
STEM_WIDTH = 0.045  # about 6 mm
_CAP = np.linspace(-np.pi / 2, np.pi / 2, 5)
_CAP = np.stack([np.cos(_CAP), np.sin(_CAP)], axis=1)


@dataclass(frozen=True)
class Pieces:
    """Short straight pieces of vessels: ends `[n 3]` and widths `[n]` in half widths."""

    start: np.ndarray
    stop: np.ndarray
    width: np.ndarray
    alpha: np.ndarray

    def section(self, z: float, thickness: float) -> tuple[np.ndarray, np.ndarray]:
        """Return what a slice shows: outlines `[m 10 2]`, and the pieces' numbers `[m]`."""
        half = 0.5 * thickness + 0.35 * self.width
        low = np.minimum(self.start[:, 2], self.stop[:, 2])
        high = np.maximum(self.start[:, 2], self.stop[:, 2])
        index = np.flatnonzero((low < z + half) & (high > z - half))
        start, stop, half = self.start[index], self.stop[index], half[index]
        rise = stop[:, 2] - start[:, 2]
        rise = np.where(np.abs(rise) < 1e-6, 1e-6, rise)
        ends = (z + np.stack([-half, half]) - start[:, 2]) / rise
        ends = np.clip(np.sort(ends, axis=0), 0, 1)[..., None]
        p, q = (start + end * (stop - start) for end in ends)
        return _capsules(p[:, :2], q[:, :2], self.width[index]), index


def _capsules(p: np.ndarray, q: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return the outlines `[n 10 2]` of thick lines with round ends."""
    along = q - p
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    along[~along.any(1)] = [1, 0]
    across = along[:, ::-1] * [-1, 1]
    cap = _CAP[None] * 0.5 * width[:, None, None]
    ahead = cap[..., :1] * along[:, None] + cap[..., 1:] * across[:, None]
    return np.concatenate([q[:, None] + ahead, p[:, None] - ahead], axis=1)


def hilum(patient: Patient, side: int) -> np.ndarray:
    """Return where vessels and bronchi enter a lung, `[3]`, in half widths."""
    return np.array(
        [side * 0.28 + patient.shift, 0.14 * patient.depth, 0.5 * patient.height]
    )


def cover(canvas: Canvas, section: Section, pieces: Pieces, wall: float = 0.0):
    """Return the coverage by the section of the pieces, uint8 `[size size]`."""
    layer = np.zeros(canvas.image.shape, np.uint8)
    outlines, index = pieces.section(section.z, section.thickness)
    if not len(index):
        return layer
    width = pieces.width[index]
    if wall:
        middle = outlines.mean(axis=1, keepdims=True)
        outlines = middle + (outlines - middle) * (1 + wall / width)[:, None, None]
    alpha = 255 * pieces.alpha[index] * np.minimum(1, width * canvas.unit_px / 1.5)
    outlines = canvas.to_pixels(outlines)
    center = outlines.mean(axis=1)
    shown = ((center > -20) & (center < canvas.size + 20)).all(axis=1)
    # Thin pieces first, because filling replaces earlier values.
    for i in np.argsort(width, kind="stable"):
        if shown[i]:
            fill(layer, outlines[i], float(alpha[i]))
    return layer


@functools.lru_cache(maxsize=16)
def make_vessels(patient: Patient) -> Pieces:
    """Return the vessels of both lungs."""
    parts = []
    for side in SIDES:
        rng = patient.stream("vessel tree", side)
        root, count = hilum(patient, side), rng.integers(16, 26)
        headings = _outwards(rng, count, side)
        widths = rng.uniform(0.025, 0.065, count)
        starts = root + rng.normal(0, [0.03, 0.05, 0.22], (count, 3))
        parts.append(_grow(starts, headings, widths, rng, GENERATIONS))
        parts.append(_scatter(patient, root, side, rng))
    return _join(parts)


def stems(pieces: Pieces) -> Pieces:
    """Return the pieces of the large vessels at the hila."""
    is_stem = pieces.width > STEM_WIDTH
    values = (pieces.start, pieces.stop, pieces.width, pieces.alpha)
    return Pieces(*(value[is_stem] for value in values))


@functools.lru_cache(maxsize=16)
def make_bronchi(patient: Patient) -> Pieces:
    """Return the bronchi within both lungs."""
    parts = []
    for side in SIDES:
        rng = patient.stream("bronchial tree", side)
        root, count = hilum(patient, side), rng.integers(7, 11)
        headings = _outwards(rng, count, side)
        starts = root + rng.normal(0, [0.03, 0.05, 0.22], (count, 3))
        widths = rng.uniform(0.03, 0.045, count)
        parts.append(_grow(starts, headings, widths, rng, 6))
    return _join(parts)


def _join(parts: list[Pieces]) -> Pieces:
    names = ("start", "stop", "width", "alpha")
    return Pieces(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


def _outwards(rng: Rng, count: int, side: int) -> np.ndarray:
    """Draw unit vectors that point away from the mediastinum, `[count 3]`."""
    headings = rng.normal(0, [0.8, 1.0, 0.9], (count, 3))
    headings[:, 0] = side * np.abs(headings[:, 0] + 0.2)
    return headings / np.linalg.norm(headings, axis=1, keepdims=True)


def _grow(
    starts: np.ndarray,
    headings: np.ndarray,
    widths: np.ndarray,
    rng: Rng,
    generations: int,
) -> Pieces:
    """Grow wandering, tapering lines that fork."""
    found = []
    for _ in range(generations):
        count = len(widths)
        lengths = widths * rng.uniform(3.5, 8, count) + 0.02
        thinner = widths * rng.uniform(0.6, 0.85, count)
        alpha = rng.uniform(0.6, 1, count)
        for step in range(STEPS):
            headings = headings + rng.normal(0, 0.14, (count, 3))
            headings /= np.linalg.norm(headings, axis=1, keepdims=True)
            stops = starts + headings * (lengths / STEPS)[:, None]
            width = widths + (thinner - widths) * step / STEPS
            found.append(Pieces(starts, stops, width, alpha))
            starts = stops
        sideways = np.cross(headings, rng.normal(0, 1, (count, 3)))
        sideways /= np.linalg.norm(sideways, axis=1, keepdims=True) + 1e-9
        angles = rng.uniform(0.15, 0.8, (2, count)) * [[1], [-1]]
        forks = (
            np.cos(angles)[..., None] * headings + np.sin(angles)[..., None] * sideways
        )
        grows = (rng.random((2, count)) < 0.8).ravel()
        starts = np.tile(starts, (2, 1))[grows]
        headings = forks.reshape(-1, 3)[grows]
        widths = np.tile(thinner, 2)[grows]
    return _join(found)


def _scatter(patient: Patient, root: np.ndarray, side: int, rng: Rng) -> Pieces:
    """Draw small vessels everywhere, which radiate from the hilum."""
    count = 1600
    headings = _outwards(rng, count, side)
    reach = rng.random(count) ** 0.5
    middle = root + 0.8 * headings * reach[:, None] * [1, 1, 0.75 * patient.height]
    width = rng.uniform(0.005, 0.012, count)
    width += 0.02 * (1 - reach) * rng.random(count) ** 2
    along = headings + rng.normal(0, 0.45, (count, 3))
    half = 0.5 * (width + rng.exponential(0.04, count))[:, None] * along
    return Pieces(middle - half, middle + half, width, rng.uniform(0.3, 1, count))


def fade(canvas: Canvas, mask: np.ndarray) -> np.ndarray:
    """Return weights `[size size]` that let vessels end before they reach the pleura."""
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3) / (0.05 * canvas.unit_px)
    return np.minimum(distance, 1) / np.float32(255)
