"""Disease that takes the lung's place: fluid, air outside of the lung, collapse.

Convention: fluid (effusion) and air between lung and chest wall (pneumothorax) are not
lung. What is left of a compressed or collapsed lung is lung, however dense.
"""

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from lungseg_jax.data.phantom.canvas import Canvas
from lungseg_jax.data.phantom.patient import SIDES, Patient, Section, pick

# How often each is found in a patient. "filled": the fluid fills one half of the chest, and
# what remains of the lung is airless, or nothing remains. "collapse": one lung shrinks and
# the mediastinum shifts towards it.
CHANCES = {"effusion": 0.16, "filled": 0.07, "pneumothorax": 0.08, "collapse": 0.03}
FLUID_HU, PLEURAL_AIR_HU = (-5.0, 35.0), -995.0


@dataclass(frozen=True)
class Pleura:
    """The findings of a patient outside of the lung, on one side.

    Attributes:
      finding: a key of CHANCES, or "".
      side: of the image, -1 or 1.
      size: 0 to 1.
    """

    finding: str
    side: int
    size: float
    fluid_hu: float


def draw(patient: Patient) -> Pleura:
    """Draw what a patient has, the same at every call."""
    rng = patient.stream("pleura")
    finding = pick(rng, CHANCES | {"": 1 - sum(CHANCES.values())})
    return Pleura(
        finding, int(rng.choice(SIDES)), rng.uniform(), rng.uniform(*FLUID_HU)
    )


def displace(patient: Patient) -> Patient:
    """Return the patient with the mediastinum pulled towards a collapse, or pushed away."""
    pleura = draw(patient)
    pull = patient.stream("displace").uniform(0.1, 0.3)
    if pleura.finding == "filled" and pleura.size > 0.3:
        pull -= 0.3  # the fluid pushes, or balances the collapse
    if pleura.finding in ("filled", "collapse"):
        shift = patient.shift + pleura.side * pull
        return dataclasses.replace(patient, shift=float(np.clip(shift, -0.35, 0.35)))
    return patient


def paint(
    canvas: Canvas, section: Section, inside: np.ndarray, pleura: Pleura
) -> np.ndarray:
    """Paint fluid or air of the pleural space.

    Returns:
      The part of `inside` that is left to the lungs; coverages, uint8 `[size size]`.
    """
    if not pleura.finding or section.level < 0:
        return inside
    lung = _REMAINS[pleura.finding](canvas, section, pleura)
    is_air = pleura.finding == "pneumothorax"
    hu = PLEURAL_AIR_HU if is_air else pleura.fluid_hu
    half = canvas.cover(_half(section, pleura.side))
    lost = cv2.min(cv2.subtract(inside, lung), half)
    canvas.paint_cover(lost, hu)
    if pleura.finding == "effusion" and pleura.size > 0.6:  # some have it on both sides
        other = canvas.cover(_half(section, -pleura.side))
        smaller = Pleura("effusion", -pleura.side, pleura.size - 0.5, pleura.fluid_hu)
        more = cv2.min(cv2.subtract(inside, _effusion(canvas, section, smaller)), other)
        canvas.paint_cover(more, hu)
        lost = cv2.max(lost, more)
    return cv2.subtract(inside, lost)


def _half(section: Section, side: int) -> np.ndarray:
    x = section.shift
    return np.array([[x, -3], [3 * side, -3], [3 * side, 3], [x, 3]])


def _effusion(canvas: Canvas, section: Section, pleura: Pleura) -> np.ndarray:
    """Return where fluid at the lowest part of one side leaves space to the lung."""
    rng, down = section.stream("effusion", pleura.side), section.patient.down
    thick = (0.08 + 0.55 * pleura.size) * (0.3 + 0.7 * section.progress(0.1, 0.9))
    lean, waves = rng.uniform(0.1, 0.35), rng.normal(0, 0.012, 24)
    free = section.ring(section.cavity * (0.99 + waves))
    free = free - [pleura.side * lean * thick, down * thick]
    # The fluid also climbs along the side: a meniscus.
    return canvas.cover(free)


def _filled(canvas: Canvas, section: Section, pleura: Pleura) -> np.ndarray:
    """Return the small remains of a lung in a chest full of fluid."""
    rng = section.stream("filled")
    size = 0.1 + 0.25 * rng.random()
    if pleura.size < 0.3:  # after removal of the lung
        size = 0.0
    at = [pleura.side * (0.3 + 0.3 * size) + section.shift, 0.0]
    shape = section.ring(
        size * (1 + rng.normal(0, 0.08, 24)) * (1 - section.progress(0.7, 0.95))
    )
    return canvas.cover(shape * [1.1, 1.3] + at)


def _pneumothorax(canvas: Canvas, section: Section, pleura: Pleura) -> np.ndarray:
    """Return the lung under air, which rises to the highest part of the chest."""
    rng, down = section.stream("pneumothorax"), section.patient.down
    thick = (0.05 + 0.6 * pleura.size**1.5) * rng.uniform(0.8, 1.2)
    lean, waves = rng.uniform(0.1, 0.6), rng.normal(0, 0.015, 24)
    shrink = 1 - 0.35 * thick * rng.random()
    free = section.ring(section.cavity * (shrink + waves))
    return canvas.cover(free - [pleura.side * lean * thick, -down * thick])


def _collapse(canvas: Canvas, section: Section, pleura: Pleura) -> np.ndarray:
    """Return a lung that has shrunk towards the mediastinum; fluid takes its place."""
    rng = section.stream("collapse")
    wide = rng.uniform(0.5, 0.95) - 0.2 * section.progress(0.6, 1)
    shape = section.ring(section.cavity * (0.96 + rng.normal(0, 0.02, 24)))
    return canvas.cover(shape * [wide, 1] + [pleura.side * 0.05, 0])


_REMAINS = {
    "effusion": _effusion,
    "filled": _filled,
    "pneumothorax": _pneumothorax,
    "collapse": _collapse,
}
