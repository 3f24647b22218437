"""The abdomen: solid organs, and hollow ones with gas that is not lung."""

import functools

import cv2
import numpy as np

from lungseg_jax.data.phantom import diaphragm, great_vessels, mediastinum
from lungseg_jax.data.phantom.canvas import Canvas, blob, stroke
from lungseg_jax.data.phantom.chest_wall import FAT_HU, MUSCLE_HU, SOFT_HU
from lungseg_jax.data.phantom.patient import SIDES, Patient, Rng, Section
from lungseg_jax.data.phantom.solids import Tube, egg, make_tube

GAS_HU = (-1000.0, -930.0)
WATER_HU = 8.0
LIVER_HU = (30.0, 70.0)
ORAL_CONTRAST_HU = 280.0
# Of contrast medium to reach a loop of the small bowel, and then to fill it.
REACHED_CHANCE, FILLED_CHANCE = 0.1, 0.8
ASCITES_CHANCE = 0.05
HIGH_COLON_CHANCE = 0.12  # colon between the liver and the diaphragm
FULL_STOMACH_CHANCE = 0.35
FOLDS_PER_DISC = 0.12


def paint(canvas: Canvas, section: Section, below: np.ndarray) -> None:
    """Paint what is below the diaphragm.

    Args:
      canvas: to paint on.
      section: of the patient.
      below: coverage of the abdominal cavity, uint8 `[size size]`.
    """
    rng = section.stream("abdomen")
    has_ascites = rng.random() < ASCITES_CHANCE
    canvas.paint_cover(below, WATER_HU if has_ascites else FAT_HU)
    _paint_mesentery(canvas, section, below)
    _paint_muscles(canvas, section, below)
    mediastinum.paint(canvas, great_vessels.draw(section), below)
    _paint_organs(canvas, section, below)
    for tube, content in _bowel(section.patient):
        _paint_bowel(canvas, section, below, tube, content)


def _paint_mesentery(canvas: Canvas, section: Section, below: np.ndarray) -> None:
    """Paint small vessels and nodes in the fat."""
    rng = section.stream("mesentery")
    for center in rng.uniform([-0.7, -0.8, 0.8], [0.7, 0.4, 2.3], (60, 3)):
        radii = *rng.uniform(0.012, 0.05, 2), rng.uniform(0.03, 0.12)
        center = center * [1, section.depth, 1]
        part = egg(section, rng, center, radii, tilt=rng.uniform(0, 3))
        canvas.paint(part, SOFT_HU, 0.9, within=below)


def _paint_muscles(canvas: Canvas, section: Section, below: np.ndarray) -> None:
    """Paint the crura of the diaphragm and, further down, the psoas muscles."""
    for side in SIDES:
        rng = section.stream("psoas", side)
        grown = section.progress(1.1, 1.9)
        at = np.array([side * (0.16 + 0.12 * grown), section.spine_y - 0.03])
        radii = np.array([0.06 + 0.08 * grown, 0.09 + 0.07 * grown])
        canvas.paint(blob(rng, at, radii, wobble=0.1), MUSCLE_HU, within=below)
    wide = np.array([0.42, 0.3 * section.depth])
    canvas.paint(blob(rng, (0, section.spine_y + 0.3), wide), MUSCLE_HU, within=below)


def _paint_organs(canvas: Canvas, section: Section, below: np.ndarray) -> None:
    patient, d = section.patient, section.depth
    rng = section.stream("organs")
    rise = 0.3 * (patient.blood_hu - SOFT_HU)
    liver_hu = rng.uniform(*LIVER_HU) + rise
    top = diaphragm.tops(patient)[1]
    size = rng.uniform(0.85, 1.15, 6)
    organs = [  # center, radii, HU, tilt
        ((-0.48, -0.05 * d, 1.0), (0.62, 1.1 * d, 0.42 * size[0]), liver_hu, 0.1),
        ((0.05, -0.5 * d, 0.98), (0.5 * size[1], 0.5 * d, 0.24), liver_hu, -0.2),
        ((-0.4, -0.5 * d, 1.32), (0.1, 0.14, 0.12), WATER_HU, 0.3),
        ((0.7, 0.4 * d, top + 0.28), (0.2 * size[2], 0.5 * d, 0.25), 50 + rise, -0.3),
        ((0.1, -0.1 * d, 1.25), (0.3, 0.09, 0.07), SOFT_HU + rise, -0.3),
        ((0.0, -0.35 * d, 2.5), (0.35 * size[3], 0.4 * d, 0.25), WATER_HU, 0.0),
        ((0.0, 0.0, 2.3), (0.3, 0.25 * d, 0.12), SOFT_HU + rise, 0.0),
    ]
    for center, radii, hu, tilt in organs:
        part = egg(section, rng, center, radii, tilt=tilt, wobble=0.09)
        canvas.paint(part, hu, within=below)
    for center in rng.uniform([-0.9, -0.6, 0.7], [0, 0.4, 1.3], (14, 3)):
        radii = *rng.uniform(0.015, 0.06, 2), rng.uniform(0.03, 0.1)
        center = center * [1, d, 1]
        part = egg(section, rng, center, radii, tilt=rng.uniform(0, 3))
        hu = liver_hu + 1.5 * rise + rng.normal(0, 12)
        canvas.paint(part, hu, within=below)
    for side in SIDES:
        kidney = section.stream("kidney", side)
        at = side * 0.43, 0.42 * d, 1.38 - 0.03 * side
        radii = np.array([0.16, 0.21, 0.24]) * kidney.uniform(0.85, 1.1)
        for share, hu in ((1.0, 35 + 1.5 * rise), (0.45, FAT_HU)):
            shape = np.random.default_rng(patient.seed)
            part = egg(section, shape, at, share * radii, tilt=0.5 * side)
            canvas.paint(part, hu, within=below)


@functools.lru_cache(maxsize=16)
def _bowel(patient: Patient) -> list[tuple[Tube, "Content"]]:
    """Return stomach, colon and small bowel with their contents, back to front."""
    d, height = patient.depth, patient.height
    rng = patient.stream("bowel")
    parts = []
    for _ in range(16):
        start = rng.uniform([-0.55, -0.7, 1.35], [0.55, 0.2, 2.2])
        steps = rng.normal(0, [0.25, 0.25, 0.08], (5, 3))
        loop = np.clip(
            start + np.cumsum(steps, 0), [-0.65, -0.85, 1.3], [0.65, 0.3, 2.4]
        )
        loop = loop * [1, d, 1]
        fill, is_reached = rng.uniform(0.2, 2.5), rng.random() < REACHED_CHANCE
        content = Content(rng, fill=fill, is_reached=is_reached)
        parts.append((make_tube(loop, rng.uniform(0.07, 0.11), height, 0.08), content))
    flexure = 0.85 if rng.random() < HIGH_COLON_CHANCE else rng.uniform(1.2, 1.35)
    corner, sag = rng.uniform(0.84, 1.12), rng.uniform(1.25, 1.6)
    colon = np.array(
        [
            [-0.62, -0.2, 2.0],
            [-0.72, 0.05, 1.6],
            [-0.62, -0.35, flexure],
            [-0.25, -0.75, sag],
            [0.25, -0.78, sag - 0.05],
            [0.62, -0.4, corner],
            [0.74, 0.1, corner + 0.25],
            [0.72, 0.1, 1.9],
            [0.3, -0.1, 2.15],
            [-0.05, 0.2, 2.25],
            [0, 0.4, 2.5],
            [0, 0.42, 2.8],
        ]
    )
    colon = (colon + rng.normal(0, 0.03, colon.shape)) * [1, d, 1]
    wide = rng.uniform(0.08, 0.18) * rng.uniform(0.75, 1.2, len(colon))
    fill = rng.uniform(-1.0, 0.7)
    parts.append(
        (make_tube(colon, wide, height, 0.2), Content(rng, fill=fill, mottled=True))
    )
    at = len(parts) - int(rng.random() < 0.5)  # behind the colon, or in front of it
    parts.insert(at, _stomach(patient, rng))
    return parts


def _stomach(patient: Patient, rng: Rng) -> tuple[Tube, "Content"]:
    d, top = patient.depth, diaphragm.tops(patient)[1]
    line = np.array(
        [
            [0.45, 0.2, top + 0.14],
            [0.5, -0.05, top + 0.25],
            [0.42, -0.45, 1.12],
            [0.2, -0.62, 1.3],
            [-0.15, -0.5, 1.28],
        ]
    )
    is_full = rng.random() < FULL_STOMACH_CHANCE
    wide = rng.uniform(0.24, 0.36) if is_full else rng.uniform(0.12, 0.24)
    radii = wide * np.array([1, 1.05, 0.85, 0.55, 0.4])
    content = Content(rng, fill=rng.uniform(-0.8, 1.0), mottled=rng.random() < 0.4)
    return make_tube(line * [1, d, 1], radii, patient.height), content


class Content:
    """What fills a bowel: fluid or stool and, above its level, gas.

    Args:
      rng: source of the draws.
      fill: mean level of the content: no gas above 1, nothing but gas below -1.
      mottled: stool or food, with bubbles.
      is_reached: by oral contrast medium, which may fill it.
    """

    def __init__(
        self, rng: Rng, *, fill: float, mottled: bool = False, is_reached: bool = False
    ):
        self.fill, self.mottled = fill, mottled
        self.hu = rng.uniform(-200, 50) if mottled else rng.uniform(0, 40)
        if is_reached and rng.random() < FILLED_CHANCE:
            self.hu = ORAL_CONTRAST_HU
        self.gas_hu = rng.uniform(*GAS_HU)
        self.bubbles = rng.uniform(60, 900)
        self.wall = rng.uniform(0.012, 0.03)
        self.waves = rng.uniform(0, 2 * np.pi, 3)

    def fills(self, count: int) -> np.ndarray:
        """Return the level along the tube, `[count]`."""
        along = np.arange(count)[:, None] / 9 * np.array([0.4, 0.9, 1.7])
        return self.fill + 0.6 * np.sin(along + self.waves).sum(1)


def _paint_bowel(
    canvas: Canvas, section: Section, below: np.ndarray, tube: Tube, content: Content
) -> None:
    discs = tube.section(section.z)
    if not discs:
        return
    canvas.paint_union(tube.section(section.z, content.wall), SOFT_HU, within=below)
    # The wall also separates the lumen from whatever limits the abdomen.
    room = cv2.erode(below, np.ones((3, 3), np.uint8))
    lumen = cv2.min(canvas.cover(*discs), room)
    if content.mottled:
        _paint_stool(canvas, section, lumen, content)
    else:
        canvas.paint_cover(lumen, content.hu)
    canvas.paint_union(_gas(section, tube, content), content.gas_hu, within=lumen)
    _paint_folds(canvas, section, discs, lumen)


def _gas(section: Section, tube: Tube, content: Content) -> list[np.ndarray]:
    """Return the discs of a tube above the level of its content."""
    shown = tube.shown(section.z)
    fills, discs = content.fills(len(tube.radii)), tube.section(section.z)
    down, gas = section.patient.down, []
    # Neighboring balls are one lumen, with one level.
    for run in np.split(np.arange(len(shown)), np.flatnonzero(np.diff(shown) > 1) + 1):
        fill = fills[shown[run]].mean()
        if fill > 1:
            continue
        lumen = np.stack([discs[i] for i in run])
        low, high = lumen[..., 1].min(), lumen[..., 1].max()
        surface = down * (low + high) / 2 - (high - low) / 2 * fill
        lumen[..., 1] = down * np.minimum(down * lumen[..., 1], surface)
        gas += list(lumen)
    return gas


def _paint_folds(
    canvas: Canvas, section: Section, discs: list[np.ndarray], lumen: np.ndarray
) -> None:
    """Paint folds of the wall, which reach into the lumen and divide its gas."""
    rng = section.stream("folds", int(np.floor(section.z / 0.05)))
    for _ in range(rng.poisson(FOLDS_PER_DISC * len(discs))):
        disc = discs[rng.integers(len(discs))]
        first, span = rng.integers(len(disc)), rng.integers(3, 12)
        start, end = disc[first], disc[(first + span) % len(disc)]
        line = np.linspace(start, start + rng.uniform(0.3, 1) * (end - start), 6)
        fold = stroke(line, rng.uniform(0.008, 0.02))
        canvas.paint(fold, SOFT_HU, rng.uniform(0.5, 1), within=lumen)


def _paint_stool(
    canvas: Canvas, section: Section, lumen: np.ndarray, content: Content
) -> None:
    """Paint stool: soft, with bubbles of gas."""
    rng = section.stream("stool", int(np.floor(section.z / 0.05)))
    left, top, width, height = cv2.boundingRect(lumen)
    if not width:
        return
    cells = max(int(24 * max(width, height) / canvas.unit_px), 4)
    coarse = rng.standard_normal((cells, cells), np.float32)
    texture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    hu = content.hu - content.bubbles * np.clip(texture, 0, 2)
    box = np.s_[top : top + height, left : left + width]
    window = canvas.image[box]
    window += (hu - window) * (lumen[box] / np.float32(255))
