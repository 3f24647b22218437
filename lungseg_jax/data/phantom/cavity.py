"""The thoracic cavity: what surrounds the lungs gives them their shape."""

import cv2
import numpy as np

from lungseg_jax.data.phantom import (
    abdomen,
    airways,
    diaphragm,
    mediastinum,
    pleura,
    spine,
)
from lungseg_jax.data.phantom.canvas import Canvas, fill
from lungseg_jax.data.phantom.chest_wall import FAT_HU, SOFT_HU
from lungseg_jax.data.phantom.patient import SIDES, Section
from lungseg_jax.data.phantom.pleura import Pleura

APEX, BASE = 0.0, diaphragm.BASE  # there is no lung above and below


def paint(canvas: Canvas, section: Section, findings: Pleura) -> np.ndarray:
    """Paint the cavity of chest and abdomen without the lungs.

    Returns:
      The mask of the lungs, uint8 `[size size]` in {0, 255}.
    """
    canvas.paint(section.ring(section.cavity + 0.012), FAT_HU)
    inside = canvas.cover(section.ring(section.cavity))
    has_lung = APEX < section.level < BASE
    aired = pleura.paint(canvas, section, inside, findings) if has_lung else inside
    if section.level < 0.3:
        tops = _apices(canvas, section)
        canvas.paint_cover(cv2.subtract(inside, tops), 0.5 * (SOFT_HU + FAT_HU))
        aired = cv2.min(aired, tops)
    organs = mediastinum.draw(section) if section.level < 1.1 else []
    mediastinum.paint(canvas, organs, inside)
    lumina, walls = airways.sections(section)
    canvas.paint_union(walls, SOFT_HU, within=inside)
    canvas.paint_union(lumina, airways.AIRWAY_HU, within=inside)
    below = _below_diaphragm(canvas, section, inside)
    if below.any():
        abdomen.paint(canvas, section, below)
    spine.paint(canvas, section)
    if not has_lung:
        return np.zeros_like(inside)
    solid = canvas.cover(*(outline for outlines, _ in organs for outline in outlines))
    field = cv2.subtract(aired, cv2.max(solid, below))
    # A blur before the threshold rounds corners, as the pleura does.
    field = cv2.GaussianBlur(field, (0, 0), max(0.012 * canvas.unit_px, 0.3))
    field = cv2.min(field, inside)
    for wall in walls:
        fill(field, canvas.to_pixels(wall), 0)
    lungs = np.where(field > 127, 255, 0).astype(np.uint8)
    return _largest(lungs, at_least=0.006 * canvas.unit_px**2, at_most=6)


def _below_diaphragm(
    canvas: Canvas, section: Section, inside: np.ndarray
) -> np.ndarray:
    """Return the coverage of the abdomen; the slice's thickness blurs oblique edges."""
    if section.level > BASE + 0.02:
        return inside
    if section.level < 0.2:
        return np.zeros_like(inside)
    half = 0.5 * section.thickness / section.patient.height
    covers = [
        cv2.min(canvas.cover(*diaphragm.domes(section, offset)), inside)
        for offset in (-half, 0, half)
    ]
    return np.mean(covers, axis=0).astype(np.uint8)


def _apices(canvas: Canvas, section: Section) -> np.ndarray:
    """Return the coverage of the two domes at the top of the lungs."""
    share = np.clip(section.level / 0.3, 0, 1) ** 0.5
    rng, outlines = section.stream("apices"), []
    reach = np.abs(section.ring(section.cavity)[:, 0]).max()
    for side in SIDES:
        x, wide = side * rng.uniform(0.5, 0.58) * reach, rng.uniform(0.85, 1.1)
        radii = np.array([0.75 * wide, 1.35 * section.depth]) * reach * share
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        outlines.append(circle * radii + [x, 0.1 * section.depth])
    return canvas.cover(*outlines)


def _largest(mask: np.ndarray, at_least: float, at_most: int) -> np.ndarray:
    """Keep the largest connected parts of a mask, except those with too few pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0  # the background
    best = np.argsort(area)[::-1][:at_most]
    keep = np.zeros(len(area), np.uint8)
    keep[best[area[best] >= at_least]] = 255
    return keep[labels]
