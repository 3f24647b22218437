"""The neck: muscles, thyroid, vessels and airway."""

import numpy as np

from lungseg_jax.data.phantom import airways, great_vessels, mediastinum, spine
from lungseg_jax.data.phantom.canvas import Canvas, blob
from lungseg_jax.data.phantom.chest_wall import FAT_HU, MUSCLE_HU, SOFT_HU
from lungseg_jax.data.phantom.patient import SIDES, Section
from lungseg_jax.data.phantom.solids import egg

THYROID_HU = 110.0
SINUS_CHANCE = 0.3  # air beside the larynx


def paint(canvas: Canvas, section: Section) -> None:
    """Paint the neck above the lungs; its air is never lung."""
    rng, patient, d = section.stream("neck"), section.patient, section.depth
    inside = canvas.cover(section.ring(section.cavity))
    canvas.paint(section.ring(section.cavity), FAT_HU, alpha=0.7)
    _paint_muscles(canvas, section)
    mediastinum.paint(canvas, great_vessels.draw(section), inside)
    at = 0.0, -0.16 * d
    canvas.paint(blob(rng, at, (0.15, 0.13)), MUSCLE_HU)  # around the airway
    for side in SIDES:
        center = side * 0.12, -0.1 * d, -0.18
        lobe = egg(section, rng, center, (0.08, 0.12, 0.12), wobble=0.1)
        canvas.paint(lobe, THYROID_HU + 0.3 * patient.blood_hu)
        sinus = egg(section, rng, (side * 0.1, -0.2 * d, -0.42), (0.06, 0.03, 0.05))
        if rng.random() < SINUS_CHANCE and sinus is not None:
            canvas.paint(sinus, airways.AIRWAY_HU)
    gullet = blob(rng, (0.03, 0.05 * d), (0.06, 0.035))
    canvas.paint(gullet, SOFT_HU)
    lumina, walls = airways.sections(section)
    ring_hu = rng.uniform(60, 300)  # cartilage, calcified in some
    canvas.paint_union(walls, ring_hu)
    canvas.paint_union(lumina, airways.AIRWAY_HU)
    spine.paint(canvas, section)


def _paint_muscles(canvas: Canvas, section: Section) -> None:
    """Paint the muscles at the front and beside the spine."""
    for side in SIDES:
        rng = section.stream("neck muscles", side)
        reach = 0.9 + 0.6 * section.progress(-0.2, 0)
        for x, y, radii in (
            (0.28, -0.12, (0.07, 0.13)),
            (0.22, 0.22, (0.1, 0.08)),
            (0.12, 0.1, (0.1, 0.06)),
        ):
            at = side * x * reach, (y + section.wave(rng, 0.02)) * section.depth / 0.7
            canvas.paint(blob(rng, np.array(at), radii, wobble=0.1), MUSCLE_HU)
