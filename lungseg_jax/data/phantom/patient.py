"""The patient: build, inflation, findings, and the body's outline at any level.

Levels run along the body: 0 is the apex of the lungs and 1 their base, whatever the
patient's height. The neck is above (negative levels), the abdomen below, from about 2 the
pelvis. Numbers without a comment, here and in the neighboring modules, were chosen by eye
by comparison with real slices.
"""

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lungseg_jax.data.phantom.canvas import closed_curve

MARROW_HU = (130.0, 260.0)
CORTEX_HU = (400.0, 850.0)
PLAIN_BLOOD_HU = (35.0, 55.0)
CONTRAST_BLOOD_HU = (150.0, 300.0)

TOP_LEVEL, BOTTOM_LEVEL = -0.5, 2.8  # from the jaw to the hips
SIDES = (-1, 1)  # of the image: the patient's right, the patient's left

# Parenchyma in HU by depth of breath, and how often: quiet breathing, full inspiration
# or emphysema, expiration.
LUNG_HU = {(-870.0, -720.0): 0.55, (-940.0, -850.0): 0.27, (-750.0, -590.0): 0.18}
CONTRAST_CHANCE, PRONE_CHANCE, CHILD_CHANCE, BREASTS_CHANCE = 0.4, 0.06, 0.08, 0.4
ARMS = {"up": 0.55, "down": 0.37, "none": 0.08}  # "none": outside of the field of view

# Radii at 0, 30, ... 180 degrees from the front. The cavity is that of the chest, then
# of the abdomen, and in the neck the space of airway and vessels.
_CAVITY = {
    -0.5: (0.34, 0.34, 0.33, 0.32, 0.33, 0.34, 0.34),
    -0.16: (0.38, 0.38, 0.36, 0.36, 0.4, 0.4, 0.38),
    0.0: (0.46, 0.5, 0.52, 0.53, 0.56, 0.6, 0.52),
    0.08: (0.65, 0.7, 0.72, 0.71, 0.75, 0.8, 0.71),
    0.2: (0.79, 0.85, 0.88, 0.86, 0.9, 0.97, 0.86),
    0.4: (0.92, 0.99, 1.02, 1.0, 1.05, 1.13, 1.0),
    1.0: (0.96, 1.0, 1.02, 1.0, 1.05, 1.12, 1.0),
    1.25: (1.02, 1.03, 1.02, 0.99, 1.0, 1.0, 0.93),
    1.7: (1.0, 1.02, 0.98, 0.92, 0.92, 0.88, 0.86),
    2.2: (0.9, 0.94, 0.9, 0.84, 0.8, 0.75, 0.7),
    2.8: (0.8, 0.8, 0.72, 0.62, 0.6, 0.6, 0.6),
}
_MUSCLE = {
    -0.5: (0.12, 0.12, 0.13, 0.16, 0.26, 0.36, 0.4),
    -0.16: (0.12, 0.15, 0.22, 0.36, 0.44, 0.46, 0.45),
    -0.02: (0.16, 0.24, 0.45, 0.66, 0.6, 0.46, 0.4),
    0.1: (0.17, 0.22, 0.32, 0.5, 0.47, 0.32, 0.34),
    0.35: (0.17, 0.18, 0.2, 0.27, 0.28, 0.24, 0.31),
    0.6: (0.17, 0.14, 0.1, 0.08, 0.12, 0.16, 0.3),
    1.0: (0.13, 0.11, 0.09, 0.08, 0.11, 0.17, 0.34),
    1.25: (0.09, 0.08, 0.08, 0.09, 0.12, 0.26, 0.42),
    1.7: (0.07, 0.07, 0.09, 0.11, 0.16, 0.36, 0.44),
    2.2: (0.07, 0.08, 0.14, 0.22, 0.38, 0.52, 0.42),
    2.8: (0.12, 0.16, 0.3, 0.45, 0.55, 0.62, 0.5),
}
# With arms down, the shoulders are wide: added to the muscle.
_SHOULDERS = {
    -0.2: (0.0,) * 7,
    -0.04: (0.0, 0.05, 0.22, 0.5, 0.3, 0.05, 0.0),
    0.08: (0.0, 0.05, 0.25, 0.5, 0.3, 0.05, 0.0),
    0.2: (0.0,) * 7,
}
_FAT = {
    -0.3: (0.5, 0.6, 0.6, 0.6, 0.7, 0.8, 0.9),
    0.5: (0.6, 1.0, 1.2, 1.0, 1.1, 1.0, 0.7),
    1.1: (0.8, 1.0, 1.1, 1.1, 1.2, 1.1, 0.8),
    1.7: (1.2, 1.2, 1.0, 1.0, 1.3, 1.4, 1.0),
    2.4: (1.2, 1.1, 1.0, 1.1, 1.4, 1.6, 1.2),
}
_THETA = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_FROM_FRONT = np.minimum(_THETA, 2 * np.pi - _THETA)

Rng = np.random.Generator


@dataclass(frozen=True, eq=False)  # equal by identity, so that it can key a cache
class Patient:
    """Properties that hold at all levels. Radii are `[24]`, by angle from the front.

    Every part of the body draws its random numbers from its own stream. A stream yields
    the same numbers at every level, so neighboring levels show the same organs.

    Attributes:
      seed: of the streams.
      height: of the lungs, from level 0 to 1, in half widths.
      depth: half the depth of the thoracic cavity, in half widths.
      half_width_mm: half the width of the thoracic cavity.
      down: the direction of gravity along y: 1 supine, -1 prone.
      lung_hu: mean of the healthy parenchyma.
      inflation: 0 after expiration, 1 after full inspiration, which lowers the diaphragm.
      shift: of the mediastinum, towards the patient's left.
      arms: a key of ARMS.
      fat: mean thickness below the skin, in half widths.
      obesity: 0 to 1, which widens the abdomen and fills it with fat.
    """

    seed: tuple[int, ...]
    height: float
    depth: float
    half_width_mm: float
    down: int
    lung_hu: float
    inflation: float
    blood_hu: float
    cortex_hu: float
    marrow_hu: float
    shift: float
    arms: str
    fat: float
    obesity: float
    muscle: float
    uneven: np.ndarray = field(repr=False)  # of cavity, muscle and fat, [3 24]
    breasts: np.ndarray = field(repr=False)

    def stream(self, name: str, *numbers: int) -> Rng:
        """Return a generator whose draws depend on the patient and the name only."""
        key = [*self.seed, zlib.crc32(name.encode()), *(n + 2**20 for n in numbers)]
        return np.random.default_rng(key)

    def at(self, level: float, thickness: float = 0.0) -> "Section":
        """Return the cross-section at a level, averaged over a thickness in half widths."""
        cavity = _by_level(_CAVITY, level) * self.uneven[0]
        belly = _window(level, 0.9, 1.3, 2.0, 2.6)
        cavity = cavity * (1 + self.obesity * belly * (0.1 + 0.25 * _FRONT))
        muscle = _by_level(_MUSCLE, level)
        if self.arms == "down":
            muscle = muscle + _by_level(_SHOULDERS, level)
        muscle = muscle * self.muscle * self.uneven[1]
        fat = self.fat * _by_level(_FAT, level)
        fat = fat + self.breasts * _window(level, 0.3, 0.5, 0.7, 0.95)
        fat = fat.clip(0.02, 0.75) * self.uneven[2]
        return Section(self, level, thickness, cavity, muscle, fat)


@dataclass(frozen=True)
class Section:
    """A patient at one level: what a slice shows."""

    patient: Patient
    level: float
    thickness: float
    cavity: np.ndarray
    muscle: np.ndarray
    fat: np.ndarray

    @property
    def depth(self) -> float:
        return self.patient.depth

    @property
    def z(self) -> float:
        """The level in half widths."""
        return self.level * self.patient.height

    @property
    def skin(self) -> np.ndarray:
        """The outline of the body, `[192 2]`."""
        return self.ring(self.cavity + self.muscle + self.fat)

    @property
    def spine_y(self) -> float:
        neck, loin = 1 - self.progress(-0.3, 0.15), self.progress(1.0, 1.6)
        return (0.58 - 0.28 * neck - 0.1 * loin) * self.depth

    @property
    def shift(self) -> float:
        """The displacement of the mediastinum at this level."""
        return (
            self.patient.shift * self.progress(-0.1, 0.3) * (1 - self.progress(1, 1.3))
        )

    def stream(self, name: str, *numbers: int) -> Rng:
        return self.patient.stream(name, *numbers)

    def ring(self, radii: np.ndarray | float) -> np.ndarray:
        """Return the closed curve `[192 2]` at these radii, starting from the front."""
        axes = np.stack([np.sin(_THETA), -self.depth * np.cos(_THETA)], axis=1)
        return closed_curve(np.broadcast_to(radii, (24,))[:, None] * axes)

    def progress(self, start: float, stop: float) -> float:
        """Return a smooth step from 0 to 1 as the level goes from `start` to `stop`."""
        return _smooth((self.level - start) / (stop - start))

    def wave(self, rng: Rng, amount: float) -> float:
        """Draw a value that varies smoothly along the body, with deviation `amount`."""
        phase = rng.uniform(0, 2 * np.pi, 3)
        waves = np.sin(phase + 3.0 * self.level * np.array([0.6, 1.1, 1.7]))
        return float(amount * np.sqrt(2 / 3) * waves.sum())


def draw_patient(seed: tuple[int, ...]) -> Patient:
    """Draw a random patient."""
    rng = np.random.default_rng([*seed, zlib.crc32(b"patient")])
    lung_hu = rng.uniform(*pick(rng, LUNG_HU))
    is_child = rng.random() < CHILD_CHANCE
    has_contrast = rng.random() < CONTRAST_CHANCE
    obesity = float(rng.beta(0.8, 2.2))
    fat = rng.lognormal(np.log(0.05 + 0.11 * obesity), 0.45)
    fat = fat * 0.5 if is_child else fat
    has_breasts = rng.random() < BREASTS_CHANCE and not is_child
    uneven = np.stack([_uneven(rng, amount) for amount in (0.014, 0.06, 0.06)])
    return Patient(
        seed=tuple(seed),
        height=rng.uniform(1.2, 1.6) if is_child else rng.uniform(1.35, 1.95),
        depth=rng.uniform(0.68, 0.88) if is_child else rng.uniform(0.6, 0.82),
        half_width_mm=rng.uniform(60, 110) if is_child else rng.uniform(115, 155),
        down=-1 if rng.random() < PRONE_CHANCE else 1,
        lung_hu=lung_hu,
        inflation=float(np.clip((-620 - lung_hu) / 300 + rng.normal(0, 0.15), 0, 1)),
        blood_hu=rng.uniform(*(CONTRAST_BLOOD_HU if has_contrast else PLAIN_BLOOD_HU)),
        cortex_hu=rng.uniform(*CORTEX_HU) * (0.75 if is_child else 1),
        marrow_hu=rng.uniform(*MARROW_HU),
        shift=float(np.clip(rng.normal(0, 0.06), -0.2, 0.2)),
        arms=pick(rng, ARMS),
        fat=float(np.clip(fat, 0.02, 0.5)),
        obesity=0.0 if is_child else obesity,
        muscle=rng.uniform(0.65, 0.9) if is_child else rng.uniform(0.8, 1.2),
        uneven=uneven,
        breasts=_breasts(rng) if has_breasts else np.zeros(24),
    )


def pick(rng: Rng, chances: dict) -> Any:
    """Draw a key of a table, each with its chance."""
    return list(chances)[rng.choice(len(chances), p=list(chances.values()))]


def _smooth(x: float) -> float:
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _window(level: float, *corners: float) -> float:
    """Return a smooth bump: 0, rising to 1, and falling to 0 again."""
    a, b, c, d = corners
    return _smooth((level - a) / (b - a)) * (1 - _smooth((level - c) / (d - c)))


def _by_level(keys: dict[float, tuple[float, ...]], level: float) -> np.ndarray:
    """Interpolate a table of radii between levels, then between angles: `[24]`."""
    levels, table = list(keys), np.array(list(keys.values()))
    row = [np.interp(level, levels, column) for column in table.T]
    return np.interp(_FROM_FRONT, np.linspace(0, np.pi, len(row)), row)


_FRONT = np.cos(_FROM_FRONT).clip(0) ** 0.7  # 1 at the front, 0 from the sides on


def _uneven(rng: Rng, amount: float) -> np.ndarray:
    """Draw a smooth, asymmetric variation around 1, `[24]`."""
    order = np.arange(1, 6)[:, None]
    waves = np.cos(order * _THETA + rng.uniform(0, 2 * np.pi, (5, 1)))
    return 1 + amount * rng.normal(size=5) @ waves


def _breasts(rng: Rng) -> np.ndarray:
    """Draw the additional fat of breasts, `[24]`."""
    middle, width = np.radians(rng.uniform(38, 55)), rng.uniform(0.28, 0.4)
    return rng.uniform(0.1, 0.45) * np.exp(-(((_FROM_FRONT - middle) / width) ** 2))
