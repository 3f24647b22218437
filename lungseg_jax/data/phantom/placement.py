"""Where a slice is taken, and how the patient is placed in the image."""

import numpy as np

from lungseg_jax.data.phantom.patient import (
    BOTTOM_LEVEL,
    SIDES,
    TOP_LEVEL,
    Patient,
    Rng,
    Section,
    pick,
)

# Ranges of levels, and how often: about 22 % of the slices show no lung.
LEVELS = {
    (0.1, 1.0): 0.48,  # anywhere in the chest, mostly in its middle
    (0.72, 1.03): 0.21,  # the bases, with liver, spleen, stomach and colon
    (0.0, 0.2): 0.09,  # the apices
    (TOP_LEVEL, 0.0): 0.04,  # neck and shoulders
    (1.03, 1.7): 0.15,  # the upper abdomen
    (1.7, BOTTOM_LEVEL): 0.03,  # the lower abdomen and the pelvis
}
# Fields of view, and how often: as for a chest; large, for a small patient; tight, which
# cuts the chest wall; one lung, without air around the body.
FIELDS = {"chest": 0.62, "large": 0.13, "tight": 0.12, "lung": 0.13}
THICKNESS_MM = (0.6, 6.0)


def draw_section(patient: Patient, index: int, rng: Rng) -> Section:
    """Draw the level and the thickness of the slice `index` of a dataset.

    The shares of LEVELS hold for a few consecutive slices, not only on average: multiples
    of the golden ratio are spread evenly over [0, 1).
    """
    bands, weights = list(LEVELS), list(LEVELS.values())
    even = (0.5 + index * (np.sqrt(5) - 1) / 2) % 1
    low, high = bands[min(np.searchsorted(np.cumsum(weights), even), len(bands) - 1)]
    share = rng.beta(1.5, 1.4) if (low, high) == bands[0] else rng.uniform()
    thickness_mm = np.exp(rng.uniform(*np.log(THICKNESS_MM)))
    thickness = thickness_mm / patient.half_width_mm
    return patient.at(low + share * (high - low), thickness)


def draw_frame(section: Section, rng: Rng) -> np.ndarray:
    """Draw the affine map `[2 3]` from patient coordinates to fractions of the image."""
    patient = section.patient
    turn = np.radians(np.clip(rng.normal(0, 4), -15, 15))
    field = pick(rng, FIELDS)
    reach = max(np.linalg.norm(section.ring(section.cavity), axis=1).max(), 0.75)
    width = max(np.ptp(section.skin[:, 0]), 1.7)
    drift = rng.normal(0, [0.02, 0.04])
    middle = np.zeros(2)
    if field == "chest":  # the cavity is in the field of view, the skin not necessarily
        scale = min(np.clip(rng.normal(0.98, 0.1), 0.66, 1.2) / width, 0.465 / reach)
        slack = 0.485 - scale * reach
        drift = np.clip(drift, -slack, slack)
    elif field == "large":
        scale = rng.uniform(0.28, 0.66) / width
        drift = drift * 2
    elif field == "tight":
        scale = rng.uniform(0.47, 0.58) / reach
    else:
        scale = 1 / rng.uniform(0.95, 1.7)
        middle = np.array([rng.choice(SIDES) * rng.uniform(0.4, 0.6), 0.0])
    return make_frame(scale, turn, patient.down, 0.5 + drift, middle)


def make_frame(
    scale: float,
    turn: float,
    down: int,
    center: np.ndarray | tuple[float, float],
    middle: np.ndarray | tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Return the affine map `[2 3]` from patient coordinates to fractions of the image.

    Args:
      scale: fractions of the image in half a thoracic cavity.
      turn: rotation in radians.
      down: -1 turns the patient's back up.
      center: where in the image `middle` is, in fractions.
      middle: patient coordinates.
    """
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = scale * np.array([[cos, -sin], [sin, cos]]) @ np.diag([1, down])
    return np.concatenate([matrix, (center - matrix @ middle)[:, None]], axis=1)
