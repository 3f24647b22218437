"""The diaphragm: two domes, which the abdomen fills from below."""

import numpy as np

from lungseg_jax.data.phantom.patient import SIDES, Patient, Section

RAISED_CHANCE = 0.08
# The lowest levels that the lungs reach around a dome: at the front, the side, the back.
RECESSES = {"front": (0.78, 0.92), "side": (0.93, 1.02), "back": (1.0, 1.06)}
BASE = 1.06  # there is no lung below


def tops(patient: Patient) -> np.ndarray:
    """Return the levels of the right and the left dome, `[2]`."""
    rng = patient.stream("tops")
    levels = rng.uniform([0.56, 0.62], [0.72, 0.8]) + 0.1 * patient.inflation
    if rng.random() < RAISED_CHANCE:
        levels[rng.integers(2)] -= rng.uniform(0.1, 0.4)
    return levels


def domes(section: Section, offset: float = 0.0) -> list[np.ndarray]:
    """Return the outlines `[96 2]` of what is below the diaphragm at this level.

    A dome is a paraboloid from its top to the recesses, where it meets the chest wall.

    Args:
      section: where to cut the domes.
      offset: added to the level.
    """
    patient, rng = section.patient, section.stream("diaphragm")
    level = section.level + offset
    wall = section.ring(section.cavity * 1.01)
    outlines = []
    for side, top in zip(SIDES, tops(patient)):
        x, y = rng.uniform(0.44, 0.54), rng.uniform(-0.22, -0.02) * patient.depth
        flat, waves = rng.uniform(0.45, 0.62), rng.normal(0, 0.03, 4)
        recesses = [rng.uniform(*band) for band in RECESSES.values()]
        if level <= top:
            continue
        center = np.array([side * x, y])
        theta = np.linspace(0, 2 * np.pi, 96, endpoint=False)
        from_front = np.degrees(np.arccos(-np.sin(theta)))
        bottom = np.interp(from_front, [20, 90, 150], recesses)
        bottom = np.maximum(bottom, top + 0.12)
        share = np.clip((level - top) / (bottom - top), 0, 1) ** flat
        order = np.arange(2, 6)[:, None]
        share = share * (
            1 + (1 - share) * (waves @ np.cos(order * theta + 9 * waves[:, None]))
        )
        reach = _distance(wall - center, theta)
        # Towards the middle, the domes meet below the heart.
        medial = -side * np.cos(theta)
        reach = np.where(
            medial > 0.3, np.minimum(reach, 0.75 / np.maximum(medial, 0.4)), reach
        )
        radius = share * reach
        points = np.stack([np.cos(theta), np.sin(theta)], axis=1)
        outlines.append(center + radius[:, None] * points)
    return outlines


def _distance(outline: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Return the distance from the origin to a star-shaped outline, by angle."""
    angle = np.arctan2(outline[:, 1], outline[:, 0])
    order = np.argsort(angle)
    radius = np.linalg.norm(outline, axis=1)
    return np.interp(theta, angle[order], radius[order], period=2 * np.pi)
