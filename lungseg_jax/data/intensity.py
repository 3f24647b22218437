"""What the values of images are: Hounsfield units, or something that only looks like it.

A network answers any input; for values of another kind the answer is an empty mask, or
worse, a plausible one.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from lungseg_jax.runtime.errors import UserError

AIR_HU = -200  # every CT slice of a chest has pixels below: lung, or the air around
# Bone and metal: 0.8 % of a slice of the Kaggle set at most. Without its offset of -1024
# soft tissue is as dense, 17 % of a slice at least.
DENSE_HU, MOST_DENSE = 700, 0.08

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


class Values(NamedTuple):
    """What is looked at of the values of some images.

    Attributes:
      low, high: least and largest.
      dense: share of the pixels above `DENSE_HU`.
    """

    low: float
    high: float
    dense: float = 0.0


def values_of(images: Iterable[np.ndarray]) -> Values:
    """Of some images, at least one."""
    low, high, dense, pixels = np.inf, -np.inf, 0, 0
    for image in images:
        low, high = min(low, float(image.min())), max(high, float(image.max()))
        dense += int((image > DENSE_HU).sum())
        pixels += image.size
    return Values(low, high, dense / pixels)


def detect_intensity(values: Values) -> str:
    """The key of `DOMAINS` for images with these values.

    "unknown" where nothing speaks for one: a blank image, or soft tissue alone.
    """
    low, high, dense = values
    if low < AIR_HU:  # or padding outside the field of view
        return "unsigned" if dense > MOST_DENSE else "HU"
    if low < 0 or low == high:
        return "unknown"
    if high <= 1:
        return "unit"
    return "8-bit" if high <= 255 else "unsigned"


def require_intensity(values: Values, trained_on: str, where: str) -> str:
    """The domain of images with these values, which is that of the training or unknown.

    Args:
      values: of the images.
      trained_on: key of `DOMAINS`.
      where: the name of the input.

    Raises:
      UserError: the network would answer, and the answer would mean nothing.
    """
    found = detect_intensity(values)
    if found == trained_on or "unknown" in (found, trained_on):
        return found
    low, high, _ = values
    raise UserError(
        f"{where} has {DOMAINS[found]} ({low:g} to {high:g}); the network was trained on "
        f"{DOMAINS[trained_on]}.",
        rule="values mean the same in training and in use.",
        remedy=_REMEDIES[found],
    )
