"""The patient: build, level of the slice, and placement in the image.

Numbers without a comment, here and in the neighbouring modules, were chosen by eye by
comparison with real slices.
"""

from dataclasses import dataclass

import numpy as np

from lungseg_jax.data.phantom.canvas import closed_curve

MARROW_HU = (130.0, 260.0)
CORTEX_HU = (400.0, 850.0)
PLAIN_BLOOD_HU = (35.0, 55.0)
CONTRAST_BLOOD_HU = (150.0, 300.0)

SIDES = (-1, 1)  # of the image: the patient's right, the patient's left
_THETA = np.linspace(0, 2 * np.pi, 24, endpoint=False)

Rng = np.random.Generator


@dataclass(frozen=True)
class Patient:
    """Properties shared by all organs. Radii are `[24]`, by angle from the front."""

    # 0 at the apex of the lungs and 1 at their base: trachea up to 0.38, carina up to
    # 0.44, great vessels up to 0.55, then the heart; diaphragm from about 0.7.
    level: float
    depth: float  # half the depth of the thoracic cavity, in half widths
    down: int  # the direction of gravity along y: 1 supine, -1 prone
    blood_hu: float
    cortex_hu: float
    marrow_hu: float
    shift: float  # of the mediastinum, towards the patient's left
    cavity: np.ndarray
    muscle: np.ndarray
    fat: np.ndarray

    @property
    def skin(self) -> np.ndarray:
        """The outline of the body, `[192 2]`."""
        return self.ring(self.cavity + self.muscle + self.fat)

    @property
    def spine_y(self) -> float:
        return 0.58 * self.depth

    def ring(self, radii: np.ndarray) -> np.ndarray:
        """Return the closed curve `[192 2]` at these radii, starting from the front."""
        axes = np.stack([np.sin(_THETA), -self.depth * np.cos(_THETA)], axis=1)
        return closed_curve(radii[:, None] * axes)

    def progress(self, start: float, stop: float) -> float:
        """Return a smooth step from 0 to 1 as the level goes from `start` to `stop`."""
        x = np.clip((self.level - start) / (stop - start), 0, 1)
        return float(x * x * (3 - 2 * x))


def draw_patient(rng: Rng) -> Patient:
    """Draw a random patient, and the level of the slice."""
    level = 0.08 + 0.92 * rng.beta(1.6, 1.4)
    shoulder = 1 - np.clip((level - 0.1) / 0.5, 0, 1)
    cavity = _by_angle(0.92, 0.99, 1.02, 1.0, 1.05, 1.13, 1.0)
    cavity *= 1 - 0.4 * np.clip(1 - level / 0.4, 0, 1) ** 1.5
    muscle = _by_angle(0.17, 0.14, 0.1, 0.08, 0.12, 0.16, 0.3) * rng.uniform(0.8, 1.2)
    muscle += shoulder * _by_angle(0.0, 0.08, 0.2, 0.38, 0.32, 0.15, 0.03)
    fat = rng.lognormal(np.log(0.065), 0.6) * _by_angle(0.6, 1.0, 1.2, 1, 1.1, 1, 0.7)
    if rng.random() < 0.4 and level > 0.3:
        fat += _breasts(rng)
    has_contrast = rng.random() < 0.4
    return Patient(
        level=level,
        depth=rng.uniform(0.62, 0.8),
        down=-1 if rng.random() < 0.06 else 1,
        blood_hu=rng.uniform(*(CONTRAST_BLOOD_HU if has_contrast else PLAIN_BLOOD_HU)),
        cortex_hu=rng.uniform(*CORTEX_HU),
        marrow_hu=rng.uniform(*MARROW_HU),
        shift=float(np.clip(rng.normal(0, 0.06), -0.2, 0.2)),
        cavity=cavity * _uneven(rng, 0.014),
        muscle=muscle * _uneven(rng, 0.06),
        fat=fat.clip(0.025, 0.6) * _uneven(rng, 0.06),
    )


def draw_frame(patient: Patient, rng: Rng) -> np.ndarray:
    """Draw the affine map `[2 3]` from patient coordinates to fractions of the image.

    The thoracic cavity is always inside the field of view, the skin not necessarily.
    """
    turn = np.radians(np.clip(rng.normal(0, 4), -15, 15))
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.diag([1, patient.down])
    reach = np.linalg.norm(patient.ring(patient.cavity), axis=1).max()
    wanted_width = np.clip(rng.normal(0.98, 0.1), 0.66, 1.2)
    scale = min(wanted_width / np.ptp(patient.skin[:, 0]), 0.465 / reach)
    slack = 0.485 - scale * reach
    center = 0.5 + np.clip(rng.normal(0, [0.02, 0.04]), -slack, slack)
    return np.concatenate([scale * matrix, center[:, None]], axis=1)


def _by_angle(*values: float) -> np.ndarray:
    """Interpolate values given at 0, 30, ... 180 degrees, symmetrically: `[24]`."""
    from_front = np.minimum(_THETA, 2 * np.pi - _THETA)
    return np.interp(from_front, np.linspace(0, np.pi, len(values)), values)


def _uneven(rng: Rng, amount: float) -> np.ndarray:
    """Draw a smooth, asymmetric variation around 1, `[24]`."""
    order = np.arange(1, 6)[:, None]
    waves = np.cos(order * _THETA + rng.uniform(0, 2 * np.pi, (5, 1)))
    return 1 + amount * rng.normal(size=5) @ waves


def _breasts(rng: Rng) -> np.ndarray:
    """Draw the additional fat of breasts, `[24]`."""
    middle, width = np.radians(rng.uniform(38, 55)), rng.uniform(0.28, 0.4)
    from_front = np.minimum(_THETA, 2 * np.pi - _THETA)
    return rng.uniform(0.1, 0.4) * np.exp(-(((from_front - middle) / width) ** 2))
