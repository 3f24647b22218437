"""Disease within the lung, all of which is lung by convention.

Consolidation, ground glass, collapse, fibrosis, emphysema, bullae, nodules and masses
change the density of the parenchyma, not the mask. See `pleura` for what is outside of it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from lungseg_jax.data.phantom.canvas import Canvas
from lungseg_jax.data.phantom.patient import SIDES, Section
from lungseg_jax.data.phantom.pleura import Pleura
from lungseg_jax.data.phantom.solids import egg

GROUND_GLASS_HU, CONSOLIDATION_HU = (-650.0, -350.0), (-40.0, 70.0)
ATELECTASIS_HU, AIRLESS_HU = (-600.0, -150.0), (20.0, 60.0)
NODULE_HU, BULLA_HU, EMPHYSEMA_HU = (-40.0, 70.0), -985.0, -970.0

# How often each disease is found in a patient.
CHANCES = {
    "clouds": 0.24,  # one to three ragged opacities, ground glass or consolidation
    "lobe": 0.06,  # a lobe is consolidated, with a sharp edge at its fissure
    "whole": 0.05,  # a lung is consolidated
    "diffuse": 0.05,  # ground glass everywhere, as in oedema
    "dependent": 0.25,  # the lowest part is compressed
    "fibrosis": 0.06,  # a net of walls around small cysts, mostly near the wall
    "emphysema": 0.12,
    "miliary": 0.03,  # a fine-grained rise of density
}
NODULES_CHANCE, MASS_CHANCE, BULLAE_CHANCE = 0.25, 0.07, 0.06

CELLS = 128  # the grid of smooth fields, independent of the size of the image


@dataclass(frozen=True)
class Grid:
    """Positions on the coarse grid, `[CELLS CELLS ...]`, in half widths.

    Attributes:
      xy: patient coordinates.
      low: along gravity, from about -1 to 1.
    """

    section: Section
    xy: np.ndarray
    low: np.ndarray

    def field(self, name: str, cells: int) -> np.ndarray:
        """Return a smooth random field of about unit variance, continuous along z."""
        at = self.section.z * min(cells, 40) / 2.5
        node = int(np.floor(at))
        share = at - node
        near, far = (self._layer(name, cells, node + k) for k in (0, 1))
        return ((1 - share) * near + share * far) / np.hypot(1 - share, share)

    def _layer(self, name: str, cells: int, node: int) -> np.ndarray:
        rng = self.section.stream(name, cells, node)
        coarse = rng.standard_normal((cells, cells), np.float32)
        return cv2.resize(coarse, (CELLS, CELLS), interpolation=cv2.INTER_CUBIC)


def apply(hu: np.ndarray, grid: Grid, pleura: Pleura) -> np.ndarray:
    """Return the parenchyma `[CELLS CELLS]` in HU with the diseases of the patient."""
    for name, chance in CHANCES.items():
        rng = grid.section.stream(name)
        if rng.random() < chance:
            hu = _DISEASES[name](hu, grid, rng)
    if pleura.finding in ("filled", "collapse"):
        hu = _airless(hu, grid, pleura)
    if pleura.finding == "effusion":
        hu = _compressed(hu, grid, pleura)
    return hu


def _clouds(hu, grid, rng):
    is_dense = rng.random() < 0.5
    target = rng.uniform(*(CONSOLIDATION_HU if is_dense else GROUND_GLASS_HU))
    ragged = 0.3 * grid.field("ragged", 12) + 0.2 * grid.field("ragged", 40)
    section = grid.section
    for _ in range(rng.integers(2, 7)):
        x, y, level = rng.uniform([0.35, -0.5, 0.1], [0.9, 0.6, 1.0])
        size = rng.uniform(0.15, 0.5)
        away = np.linalg.norm(grid.xy - [rng.choice(SIDES) * x, y], axis=-1)
        away = np.hypot(away, section.z - level * section.patient.height) / size
        hu = hu + np.clip((1.1 - away + ragged) * 2.5, 0, 1) * (target - hu)
    return hu


def _lobe(hu, grid, rng):
    """Consolidate what is below an oblique plane, on one side."""
    section, side = grid.section, rng.choice(SIDES)
    target, slope, offset = rng.uniform([-40, 0.6, -0.35], [70, 1.3, 0.15])
    behind = grid.xy[..., 1] / section.depth + slope * (2 * section.level - 1)
    if rng.random() < 0.3:
        behind = -behind
    ragged = rng.choice([0.01, 0.15]) * grid.field("lobe edge", 20)
    weight = np.clip((behind - offset + ragged) * 12, 0, 1)
    return _on_side(hu, grid, side, weight * rng.uniform(0.85, 1), target)


def _whole(hu, grid, rng):
    target = rng.uniform(
        *rng.choice([CONSOLIDATION_HU, GROUND_GLASS_HU], p=[0.75, 0.25])
    )
    share = np.clip(1 + 0.15 * grid.field("whole", 10), 0, 1)
    return _on_side(
        hu, grid, rng.choice(SIDES), share, target + 25 * grid.field("whole", 24)
    )


def _on_side(hu, grid, side, weight, target):
    beside = np.clip((side * (grid.xy[..., 0] - grid.section.shift)) * 30 + 1, 0, 1)
    return hu + beside * weight * (target - hu)


def _diffuse(hu, grid, rng):
    share = rng.uniform(0.2, 0.7) * np.clip(
        0.8 + 0.3 * grid.low + 0.35 * grid.field("diffuse", 9), 0, 1
    )
    return hu + share * (rng.uniform(-350, -100) - hu)


def _dependent(hu, grid, rng):
    edge, target = rng.uniform(0.3, 0.85), rng.uniform(*ATELECTASIS_HU)
    edge = edge + 0.2 * (1 - grid.section.progress(0.3, 0.9))
    steep = rng.uniform(2, 10)
    weight = np.clip(
        (grid.low - edge + 0.06 * grid.field("dependent", 10)) * steep, 0, 1
    )
    return hu + weight * (target - hu)


def _fibrosis(hu, grid, rng):
    net = rng.uniform(500, 900) * np.exp(-3 * np.abs(grid.field("net", 36))) - 200
    outer = np.abs(grid.xy[..., 0]) + 0.7 * grid.low - 0.7
    weight = np.clip((outer + 0.2 * grid.field("fibrosis", 8)) * 3, 0, 1)
    weight = weight * (0.4 + 0.6 * grid.section.progress(0.2, 0.9))
    return hu + weight * net


def _emphysema(hu, grid, rng):
    spread = rng.uniform(0.2, 0.7)
    holes = grid.field("holes", 30) + 0.6 * grid.field("holes", 8)
    holes = np.clip(holes - spread, 0, 1)
    return hu + holes * (EMPHYSEMA_HU - hu)


def _miliary(hu, grid, rng):
    return hu + 260 * np.clip(grid.field("miliary", 90) - 1.1, 0, 1.5)


def _airless(hu, grid, pleura):
    """Fill what remains of a lung with tissue."""
    rng = grid.section.stream("airless")
    target = rng.uniform(*AIRLESS_HU) + 0.4 * (grid.section.patient.blood_hu - 40)
    share = 1.0 if pleura.finding == "filled" else rng.uniform(0.6, 1)
    return _on_side(
        hu, grid, pleura.side, share, target + 12 * grid.field("airless", 24)
    )


def _compressed(hu, grid, pleura):
    """Compress the lung above an effusion."""
    rng = grid.section.stream("compressed")
    edge, target = 0.75 - 0.75 * pleura.size, rng.uniform(-40, 60)
    weight = np.clip((grid.low - edge + 0.08 * grid.field("compressed", 10)) * 5, 0, 1)
    return _on_side(
        hu, grid, pleura.side, weight * grid.section.progress(0, 0.5), target
    )


_DISEASES = {
    "clouds": _clouds,
    "lobe": _lobe,
    "whole": _whole,
    "diffuse": _diffuse,
    "dependent": _dependent,
    "fibrosis": _fibrosis,
    "emphysema": _emphysema,
    "miliary": _miliary,
}


def paint_lesions(lungs: Canvas, section: Section) -> None:
    """Paint bullae, nodules and masses, some of them at the wall."""
    height, depth = section.patient.height, section.depth
    reach = np.abs(section.ring(section.cavity)[:, 0]).max()
    for name, chance, most, smallest, largest in (
        ("bullae", BULLAE_CHANCE, 20, 0.04, 0.25),
        ("nodules", NODULES_CHANCE, 60, 0.012, 0.06),
        ("masses", MASS_CHANCE, 4, 0.08, 0.3),
    ):
        rng = section.stream(name)
        if rng.random() > chance:
            continue
        for _ in range(rng.integers(most // 4, most + 1)):
            radius = np.exp(rng.uniform(np.log(smallest), np.log(largest)))
            angle, level = rng.uniform([0, 0.02], [2 * np.pi, 1.0])
            away = rng.choice([np.sqrt(rng.random()), 0.98]) * reach
            at = away * np.sin(angle), away * depth * np.cos(angle), level
            if name == "bullae":
                level = level**2  # mostly at the apex
            radii = radius, radius * rng.uniform(0.7, 1.2), radius / height
            part = egg(section, rng, (*at[:2], level), radii, wobble=0.2)
            hu = BULLA_HU if name == "bullae" else rng.uniform(*NODULE_HU)
            if part is None:
                continue
            if name == "bullae":
                middle = part.mean(0)
                lungs.paint(
                    middle + (part - middle) * (1 + 0.006 / radius), -500.0, 0.7
                )
            lungs.paint(part, hu)
