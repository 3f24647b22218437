"""The interior of the lungs: parenchyma, disease, fissures, nodules, vessels, bronchi."""

import cv2
import numpy as np

from lungseg_jax.data.phantom import great_vessels, pathology, vessels
from lungseg_jax.data.phantom.canvas import Canvas, stroke
from lungseg_jax.data.phantom.chest_wall import SOFT_HU
from lungseg_jax.data.phantom.pathology import CELLS, Grid
from lungseg_jax.data.phantom.patient import SIDES, Section
from lungseg_jax.data.phantom.pleura import Pleura

BRONCHUS_WALL_HU, BRONCHUS_AIR_HU = -150.0, -920.0


def paint(canvas: Canvas, section: Section, mask: np.ndarray, pleura: Pleura) -> None:
    """Paint the interior of the lungs where `mask`, uint8 `[size size]`, is not 0."""
    if not mask.any():
        return
    hu = _draw_parenchyma(canvas, section, mask, pleura)
    shape = canvas.image.shape
    lungs = canvas.overlay(cv2.resize(hu, shape, interpolation=cv2.INTER_CUBIC))
    _paint_fissures(lungs, section)
    _paint_trees(lungs, section, mask)
    _paint_hila(lungs, section)
    pathology.paint_lesions(lungs, section)
    np.copyto(canvas.image, lungs.image, where=mask > 0)


def _draw_parenchyma(
    canvas: Canvas, section: Section, mask: np.ndarray, pleura: Pleura
) -> np.ndarray:
    """Draw the lung without its vessels, in HU, float32 `[CELLS CELLS]`."""
    patient, rng = section.patient, section.stream("parenchyma")
    xy = canvas.coarse_grid(CELLS)
    grid = Grid(section, xy, patient.down * xy[..., 1] / patient.depth)
    # Gravity makes the lowest parts denser, the more so after expiration.
    hu = patient.lung_hu + rng.uniform(10, 60) * (1.6 - patient.inflation) * grid.low
    hu = hu + 25 * grid.field("parenchyma", 6) + 12 * grid.field("parenchyma", 24)
    hu = pathology.apply(hu, grid, pleura)
    hu = hu + 18 * grid.field("parenchyma", CELLS)
    return _slope_edges(hu, canvas, grid, mask).astype(np.float32)


def _slope_edges(
    hu: np.ndarray, canvas: Canvas, grid: Grid, mask: np.ndarray
) -> np.ndarray:
    """Fade the edge where the pleura is oblique to the slice, mainly at the base.

    The mask ends where half of the slice's thickness is lung, so fading starts there at one
    half.
    """
    shape = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(shape, cv2.DIST_L2, 3)[1:-1, 1:-1] / canvas.unit_px
    depth = cv2.resize(depth, hu.shape, interpolation=cv2.INTER_AREA)
    base = grid.section.progress(0.5, 0.9) + 1 - grid.section.progress(0, 0.15)
    oblique = np.clip(grid.field("oblique", 4) - 0.8 + base, 0, 1)
    wide = 0.003 + 0.03 * oblique
    return hu + np.clip(0.5 - 0.5 * depth / wide, 0, 0.5) * (SOFT_HU - hu)


def _paint_fissures(lungs: Canvas, section: Section) -> None:
    for side in SIDES:
        rng = section.stream("fissure", side)
        slope, bend, rise_hu, is_thin = rng.uniform(
            [-0.5, -0.15, 40, 0], [0.5, 0.15, 160, 1]
        )
        if is_thin > 0.5:
            continue
        t = np.linspace(0, 1, 12)
        line = np.stack([side * t * 0.8, slope * t + bend * np.sin(np.pi * t)], 1)
        line = line + vessels.hilum(section.patient, side)[:2]
        line[:, 1] -= 1.2 * section.depth * (section.level - 0.5)
        lungs.image += lungs.cover(stroke(line, 0.008)) * np.float32(rise_hu / 255)


def _paint_hila(lungs: Canvas, section: Section) -> None:
    """Paint what enters the lung from the mediastinum, up to its outline."""
    for outlines, hu in great_vessels.draw_hila(section, are_wide=False):
        lungs.paint_union(outlines, hu)
    stems = vessels.stems(vessels.make_vessels(section.patient))
    lungs.paint_cover(vessels.cover(lungs, section, stems), section.patient.blood_hu)


def _paint_trees(lungs: Canvas, section: Section, mask: np.ndarray) -> None:
    """Paint vessels and bronchi; in dense lung, air bronchograms."""
    fade = vessels.fade(lungs, mask)
    dense = np.clip((lungs.image + 350) / 200, 0, 1)
    blood_hu = 0.6 * section.patient.blood_hu + 10
    bronchi = vessels.make_bronchi(section.patient)
    air = vessels.cover(lungs, section, bronchi)
    walls = vessels.cover(lungs, section, bronchi, wall=0.012)
    lungs.image += walls * fade * 0.7 * np.maximum(BRONCHUS_WALL_HU - lungs.image, 0)
    veins = vessels.cover(lungs, section, vessels.make_vessels(section.patient)) * fade
    lungs.image += veins * np.maximum(blood_hu - lungs.image, 0)
    # Where the lung is airless, most bronchi are, too.
    is_open = section.stream("bronchogram").random()
    air = air * fade * np.clip(1 - dense * (1.6 * is_open - 0.3), 0, 1)
    lungs.image += air * (BRONCHUS_AIR_HU - lungs.image)
