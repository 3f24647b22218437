"""What the values of images are: Hounsfield units, or something that only looks like it.

A network answers any input; for values of another kind the answer is an empty mask, or
worse, a plausible one.
"""

from collections.abc import Iterable

import numpy as np

from lungseg_jax.errors import UserError

AIR_HU = -200  # every CT slice of a chest has pixels below: lung, or the air around

DOMAINS = {
    "HU": "Hounsfield units",
    "8-bit": "gray values from 0 to 255",
    "unit": "values from 0 to 1",
    "unsigned": "values from 0 up, as CT files store them before the offset is added",
    "unknown": "values that do not say what they are",
}
_REMEDIES = {
    "8-bit": "use the CT files that the pictures were made from, or a run that was "
    "trained on such pictures.",
    "unit": "use the CT files that were scaled to this.",
    "unsigned": "add the rescale intercept of the scan (often -1024), or read the DICOM "
    "files themselves.",
    "HU": "use a run that was trained on Hounsfield units, or images like those that "
    "this run was trained on.",
}


def domain_of(low: float, high: float) -> str:
    """The key of `DOMAINS` for images with these least and largest values.

    "unknown" where nothing speaks for one: a blank image, or soft tissue alone.
    """
    if low < AIR_HU:
        return "HU"
    if low < 0 or low == high:
        return "unknown"
    if high <= 1:
        return "unit"
    return "8-bit" if high <= 255 else "unsigned"


def range_of(images: Iterable[np.ndarray]) -> tuple[float, float]:
    """Least and largest value of some images, at least one."""
    ranges = [(float(image.min()), float(image.max())) for image in images]
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def check_domain(low: float, high: float, trained_on: str, where: str) -> str:
    """The domain of images with these values, which is that of the training or unknown.

    Args:
      low, high: least and largest value.
      trained_on: key of `DOMAINS`.
      where: the name of the input.

    Raises:
      UserError: the network would answer, and the answer would mean nothing.
    """
    found = domain_of(low, high)
    if found == trained_on or "unknown" in (found, trained_on):
        return found
    raise UserError(
        f"{where} has {DOMAINS[found]} ({low:g} to {high:g}); the network was trained on "
        f"{DOMAINS[trained_on]}.",
        rule="values mean the same in training and in use.",
        remedy=_REMEDIES[found],
    )
