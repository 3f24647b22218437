"""The families of changes, with their levels: a table that is read when it is used."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from . import absence, acquisition, geometry, pathology
from .geometry import Changed

Level = float | str


@dataclasses.dataclass(frozen=True)
class Family:
    """Changes of one kind.

    Attributes:
      change: `change(image [h w] float32 HU, mask [h w] bool, level, rng)` gives another
        image and mask.
      meaning: of the level, with its unit.
      levels: that are scored, in order.
      moderate: those of them that any hospital may send.
      neutral: the level that changes nothing, if there is one.
      has_lung: False if no pixel of the changed slices is lung.
      is_local: whether only a part of the lung changes, whose recall is worth knowing.
    """

    change: Callable[..., Changed]
    meaning: str
    levels: Sequence[Level]
    moderate: Sequence[Level]
    neutral: Level | None = None
    has_lung: bool = True
    is_local: bool = False


def foreign_scanner(image, mask, severity, rng) -> Changed:
    """Combine density, offset, blur, noise and pixel size, each stronger by severity."""
    for change, levels in (
        (pathology.density, (-780, -840, -890, -920)),
        (acquisition.offset, (-20, 30, -60, 90)),
        (acquisition.blur, (0.5, 0.8, 1.0, 1.4)),
        (acquisition.noise, (15, 25, 40, 80)),
        (geometry.pixel_size, (0.9, 1.5, 2.5, 4.0)),
    ):
        image, mask = change(image, mask, levels[int(severity) - 1], rng)
    return image, mask


FAMILIES: dict[str, Family] = {
    "pixel size": Family(
        geometry.pixel_size, "mm", (0.5, 1, 2, 3, 4, 5), (0.5, 1, 2, 3), neutral=0.7
    ),
    "small chest": Family(
        geometry.small_chest,
        "share of its size",
        (0.8, 0.65, 0.5, 0.35, 0.25),
        (0.8, 0.65, 0.5),
        neutral=1,
    ),
    "crop to the chest": Family(
        geometry.crop_to_chest, "mm around the lungs", (40, 20, 10, 5), (40, 20)
    ),
    "crop to one lung": Family(
        geometry.crop_to_lung, "mm around the lung", (40, 20, 10, 5), (40, 20)
    ),
    "orientation": Family(
        geometry.orientation,
        "",
        tuple(geometry.ORIENTATIONS),
        tuple(geometry.ORIENTATIONS),
    ),
    "in-lung density": Family(
        pathology.density,
        "HU, median",
        (-950, -900, -850, -800, -700, -600),
        (-900, -850, -800, -700),
    ),
    "offset": Family(
        acquisition.offset, "HU", (-200, -100, -50, 50, 100, 200), (-50, 50), neutral=0
    ),
    "gain": Family(
        acquisition.gain, "factor", (0.8, 0.9, 1.1, 1.2), (0.9, 1.1), neutral=1
    ),
    "noise": Family(
        acquisition.noise, "HU", (25, 50, 100, 200, 400), (25, 50, 100), neutral=0
    ),
    "blur": Family(
        acquisition.blur, "mm", (0.5, 1, 1.5, 2, 3), (0.5, 1, 1.5), neutral=0
    ),
    "sharp kernel": Family(
        acquisition.sharp_kernel, "boost", (1.5, 2, 3, 5), (1.5, 2, 3), neutral=1
    ),
    "streaks": Family(
        acquisition.streaks, "HU", (25, 50, 100, 200), (25, 50, 100), neutral=0
    ),
    "padding": Family(
        acquisition.pad,
        "",
        tuple(acquisition.PADDINGS),
        ("round field, -3024", "round field, -2000", "round field, 0"),
    ),
    "metal": Family(
        acquisition.metal, "HU at 20 mm", (100, 300, 600, 1000), (100, 300)
    ),
    "foreign scanner": Family(foreign_scanner, "severity", (1, 2, 3, 4), (1, 2, 3)),
    "consolidation": Family(
        pathology.consolidation,
        "share of the larger lung",
        (0.1, 0.3, 0.6, 1.0),
        (0.1,),
        is_local=True,
    ),
    "pneumonia": Family(
        pathology.pneumonia,
        "share of both lungs",
        (0.05, 0.15, 0.3, 0.6),
        (0.05, 0.15),
        is_local=True,
    ),
    "ground glass": Family(
        pathology.ground_glass,
        "share of both lungs",
        (0.2, 0.5, 0.8),
        (0.2, 0.5, 0.8),
        is_local=True,
    ),
    "effusion": Family(
        pathology.effusion,
        "share of the height of one lung",
        (0.1, 0.2, 0.35, 0.5),
        (0.1, 0.2),
    ),
    "collapse": Family(
        pathology.collapse,
        "share of the width of one lung",
        (0.15, 0.3, 0.45),
        (0.15, 0.3),
    ),
    "nodules at the wall": Family(
        pathology.wall_nodules,
        "mm",
        (10, 20, 40, 70),
        (10, 20),
        is_local=True,
    ),
    "bullae": Family(
        pathology.bullae,
        "share of both lungs",
        (0.1, 0.25, 0.5),
        (0.1, 0.25),
        is_local=True,
    ),
    "without lung": Family(
        absence.without_lung,
        "",
        tuple(absence.ABSENCES),
        tuple(absence.ABSENCES),
        has_lung=False,
    ),
}


def apply(
    name: str,
    level: Level,
    image: np.ndarray,
    mask: np.ndarray,
    *,
    slice_name: str,
    seed: int = 0,
) -> Changed:
    """Apply a family at a level to a slice, as a pure function of the arguments.

    The random numbers do not depend on the level: where a change draws as many of them at
    every level, a stronger one is the same change, only stronger.

    Args:
      name: a key of `FAMILIES`.
      level: one of its levels, or any other of the same type.
      image: `[h w]` in Hounsfield units, any number type.
      mask: `[h w]` bool.
      slice_name: and `seed`: of the random numbers.

    Returns:
      The image, int16 `[h' w']`, and the mask, bool `[h' w']`.
    """
    family = FAMILIES[name]
    if level == family.neutral:
        return np.rint(image).astype(np.int16), mask
    rng = np.random.default_rng(
        [seed, *map(zlib.crc32, (name.encode(), slice_name.encode()))]
    )
    changed, changed_mask = family.change(image.astype(np.float32), mask, level, rng)
    limits = np.iinfo(np.int16)
    whole = np.clip(np.rint(changed), limits.min, limits.max).astype(np.int16)
    return whole, np.ascontiguousarray(changed_mask)
