"""The large airways: air that is not lung."""

import functools

import numpy as np

from lungseg_jax.data.phantom.patient import SIDES, Patient, Section
from lungseg_jax.data.phantom.solids import Tube, make_tube

AIRWAY_HU = -960.0


@functools.lru_cache(maxsize=16)
def make_airways(patient: Patient) -> list[Tube]:
    """Return trachea, main bronchi and the stems of the lobar bronchi."""
    rng = patient.stream("airways")
    d, shift, height = patient.depth, patient.shift, patient.height
    wide = rng.uniform(0.05, 0.078)
    carina = rng.uniform(0.39, 0.45)
    trachea = [
        [0, -0.12 * d, -0.5],
        [0, -0.06 * d, -0.15],
        [0.3 * shift, 0.05 * d, 0.08],
        [shift, 0.1 * d, carina - 0.06],
        [shift, 0.12 * d, carina],
    ]
    calibre = wide * rng.uniform(0.85, 1.15, 5)
    tubes = [make_tube(trachea, calibre, height)]
    for side in SIDES:
        slope = rng.uniform(0.8, 1.2)
        root = np.array([shift + side * 0.03, 0.12 * d, carina])
        hilum = root + [side * rng.uniform(0.24, 0.32), 0.03, 0.1 * slope]
        lower = hilum + [side * rng.uniform(0, 0.08), rng.uniform(0.05, 0.15), 0.14]
        upper = hilum + [side * 0.12, rng.uniform(-0.1, 0.02), -0.07]
        branch = hilum + [side * -0.06, 0, -0.02]
        tubes.append(
            make_tube([root, hilum, lower], wide * np.array([0.82, 0.62, 0.34]), height)
        )
        tubes.append(make_tube([branch, upper], wide * np.array([0.5, 0.32]), height))
    return tubes


def sections(section: Section) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the outlines of lumina, and of lumina with walls."""
    lumina, walls = [], []
    for tube in make_airways(section.patient):
        lumina += tube.section(section.z)
        walls += tube.section(section.z, wall=0.018)
    return lumina, walls
