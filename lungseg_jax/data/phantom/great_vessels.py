"""The great vessels: aorta, caval veins, pulmonary arteries, and those of the hila."""

import functools

import numpy as np

from lungseg_jax.data.phantom.canvas import Organ
from lungseg_jax.data.phantom.patient import SIDES, Patient, Section
from lungseg_jax.data.phantom.solids import Tube, egg, make_tube

WIDE = 0.044  # a radius: vessels and nodes of at least 12 mm are not lung

Radii = np.ndarray | list[float] | float
Line = tuple[list[list[float]], Radii]  # points (x, y, level) of a vessel, and radii

VEINS: list[Line] = [  # upper caval, left brachiocephalic, lower caval
    (
        [
            [-0.2, -0.25, 0.6],
            [-0.2, -0.28, 0.3],
            [-0.16, -0.4, 0.16],
            [-0.27, -0.1, -0.5],
        ],
        [0.08, 0.075, 0.07, 0.06],
    ),
    ([[-0.16, -0.4, 0.2], [0.15, -0.45, 0.12], [0.27, -0.1, -0.5]], 0.055),
    ([[-0.14, -0.1, 0.84], [-0.14, 0.02, 1.1], [-0.12, 0.12, 2.1]], 0.09),
]
PULMONARY_ARTERIES: list[Line] = [  # trunk and right one, left one
    (
        [
            [0.13, -0.55, 0.6],
            [0.14, -0.4, 0.49],
            [0.06, -0.1, 0.46],
            [-0.14, -0.02, 0.47],
            [-0.3, 0.08, 0.5],
        ],
        [0.12, 0.12, 0.1, 0.09, 0.06],
    ),
    ([[0.12, -0.3, 0.47], [0.24, 0.02, 0.44], [0.3, 0.18, 0.5]], [0.11, 0.09, 0.06]),
]

# Of the left side: the descending artery and the lower vein, the upper ones.
HILAR_VESSELS: list[Line] = [
    (
        [[0.2, 0.0, 0.46], [0.33, 0.12, 0.52], [0.4, 0.24, 0.63], [0.48, 0.36, 0.8]],
        [0.08, 0.075, 0.062, 0.03],
    ),
    (
        [[0.08, 0.2, 0.63], [0.25, 0.22, 0.65], [0.38, 0.28, 0.69], [0.46, 0.36, 0.8]],
        [0.065, 0.06, 0.047, 0.02],
    ),
    (
        [[0.2, 0.02, 0.46], [0.3, 0.0, 0.41], [0.36, -0.02, 0.35], [0.4, -0.05, 0.25]],
        [0.065, 0.055, 0.042, 0.02],
    ),
    (
        [
            [0.12, -0.08, 0.58],
            [0.26, -0.12, 0.52],
            [0.33, -0.16, 0.43],
            [0.4, -0.2, 0.3],
        ],
        [0.06, 0.052, 0.042, 0.02],
    ),
]


def draw(section: Section) -> list[Organ]:
    """Draw aorta, its branches, caval veins and pulmonary arteries."""
    blood = section.patient.blood_hu
    rng = section.stream("vessels")
    values = blood * rng.uniform(1, [1.0, 1.6, 1.2])
    organs = []
    for tubes, hu in zip(_trees(section.patient), values):
        outlines = [disc for tube in tubes for disc in tube.section(section.z)]
        organs.append((outlines, hu))
    return organs


@functools.lru_cache(maxsize=16)
def _trees(patient: Patient) -> tuple[list[Tube], list[Tube], list[Tube]]:
    """Return aorta and branches, veins, pulmonary arteries."""
    rng = patient.stream("trees")
    x, wide, arch = rng.uniform([0.12, 0.085, 0.24], [0.19, 0.125, 0.3])
    winding = rng.normal(0, 0.04) + 0.02  # the descending aorta may reach into the lung
    branches = [
        ([[a, -0.3, arch], [b, -0.25, 0.08], [c, e, -0.5]], [0.06, 0.05, 0.04])
        for a, b, c, e in (
            (-0.06, -0.14, -0.2, -0.05),
            (0.03, 0.1, 0.2, -0.05),
            (0.1, 0.2, 0.24, -0.1),
        )
    ]
    trees = [_aorta(x, wide, arch, winding), *branches], VEINS, PULMONARY_ARTERIES
    return tuple([_vessel(patient, *line) for line in tree] for tree in trees)


def _aorta(x: float, wide: float, arch: float, winding: float) -> Line:
    points = [
        [0.02, -0.3, 0.62],
        [-0.09, -0.42, 0.5],
        [-0.07, -0.42, arch + 0.06],
        [0.03, -0.3, arch],
        [0.15, 0.05, arch],
        [x, 0.34, arch + 0.09],
        [x + winding, 0.36, 0.7],
        [0.07, 0.3, 1.05],
        [0.03, 0.12, 1.3],
        [0.02, 0.12, 2.1],
    ]
    calibre = [1.3, 1.35, 1.3, 1.15, 1.1, 1, 0.95, 0.85, 0.75, 0.6]
    return points, wide * np.array(calibre)


def _vessel(patient: Patient, points: list, radii: Radii) -> Tube:
    """Return a vessel, displaced with the mediastinum of the patient."""
    points = np.array(points) * [1, patient.depth, 1]
    points[:, 0] += patient.shift * np.clip(1 - np.abs(points[:, 2] - 0.5), 0, 1)
    return make_tube(points, radii, patient.height)


def draw_hila(section: Section, *, are_wide: bool) -> list[Organ]:
    """Draw the wide vessels and nodes of the hila, or the others, which are lung."""
    organs = [
        (tube.section(section.z), section.patient.blood_hu)
        for tube in _hilar_vessels(section.patient)[are_wide]
    ]
    for side in SIDES:
        rng = section.stream("hilum", side)
        for center in rng.uniform([0.2, 0.04, 0.42], [0.36, 0.22, 0.7], (7, 3)):
            radii = rng.uniform(0.03, 0.1, 2)
            at = side * center[0] + section.shift, center[1] * section.depth, center[2]
            part = egg(section, rng, at, (*radii, rng.uniform(0.03, 0.09)), wobble=0.2)
            if part is not None and (radii.min() >= WIDE) == are_wide:
                organs.append(([part], section.patient.blood_hu))
    return organs


@functools.lru_cache(maxsize=16)
def _hilar_vessels(patient: Patient) -> tuple[list[Tube], list[Tube]]:
    """Return the narrow and the wide parts of the vessels that enter the lungs."""
    narrow, wide = [], []
    for side in SIDES:
        rng = patient.stream("hilar vessels", side)
        for points, radii in HILAR_VESSELS:
            points = points + rng.normal(0, [0.025, 0.04, 0.015], (4, 3))
            radii = np.array(radii) * rng.uniform(0.8, 1.3)
            tube = _vessel(patient, points * [side, 1, 1], radii)
            narrow.append(tube.part(tube.radii < WIDE))
            wide.append(tube.part(tube.radii >= WIDE))
    return narrow, wide
