"""Pixel values: Hounsfield units, or values that merely look like them.

A network accepts any input. Given values on another scale it returns an empty mask or,
worse, a plausible one.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from lungseg_jax.runtime.errors import UserError

AIR_HU = -200  # every chest slice has pixels below this: lung, or the air around it
# Bone and metal make up at most 0.8 % of any slice of the Kaggle set. Without the offset
# of -1024, soft tissue is as bright as that: at least 17 % of a slice.
DENSE_HU, MAX_DENSE_FRACTION = 700, 0.08
MAX_VALUE = 2**15  # neither Hounsfield units nor values as stored reach that far from 0
SCALED = 20  # no slice of a patient has all of its Hounsfield units within this of 0

DOMAINS = {
    "HU": "Hounsfield units",
    "8-bit": "gray values from 0 to 255",
    "unit": "values scaled to about 1",
    "unsigned": "values as CT files store them, before the offset is added",
    "unknown": "values of an unknown scale",
}
_REMEDIES = {
    "8-bit": "use the CT files that the pictures were made from, or a run that was "
    "trained on such pictures.",
    "unit": "use the CT files from before this scaling.",
    "unsigned": "add the rescale intercept of the scan (often -1024), or pass the DICOM "
    "files themselves.",
    "HU": "use a run that was trained on Hounsfield units, or images like those that "
    "this run was trained on.",
}
_REMEDY_DICOM = (
    "the files lack Rescale Intercept (0028,1052), or it is wrong: export them again, or "
    "convert them to NIfTI and add it (often -1024)."
)
_REMEDY_FAR = (
    "use the CT files that they were made from; values near 65535, for example, were "
    "negative before they were read as unsigned integers."
)
# By the domain of a volume: those that slices of it, which show a part of its values, may
# seem to have. Soft tissue beside padding with 0 seems to be gray values or, with bone or
# contrast, values as stored; but only a small part of it is as dense as those.
_OF_PARTS = {
    "HU": {"8-bit", "unit", "unsigned"},
    "unsigned": {"8-bit", "unit"},
    "8-bit": {"unit"},
}


class Values(NamedTuple):
    """Statistics of the pixel values of some images.

    Attributes:
      low, high: the minimum and the maximum.
      dense: fraction of the pixels above `DENSE_HU`, a mean over the images.
    """

    low: float
    high: float
    dense: float = 0.0


def values_of(images: Iterable[np.ndarray]) -> Values:
    """Return the statistics of one or more images, pooled."""
    return pool_values(
        Values(
            float(image.min()),
            float(image.max()),
            np.count_nonzero(image > DENSE_HU) / image.size,
        )
        for image in images
    )


def pool_values(parts: Iterable[Values]) -> Values:
    """Return the statistics of all images, from those of each."""
    low, high, dense = zip(*parts, strict=True)
    return Values(min(low), max(high), sum(dense) / len(dense))


def describe_intensities(domains: Collection[str], low: float, high: float) -> str:
    """Return a line about images of these `DOMAINS`, with values from low to high."""
    kinds = " and ".join(DOMAINS[domain] for domain in sorted(domains))
    line = f"intensities: {kinds} ({low:g} to {high:g})"
    if set(domains) != {"unknown"}:
        return line
    return (
        f"{line}, none as low as air ({AIR_HU} HU): masks are meaningless unless the units "
        "are those of the training images"
    )


def detect_intensity(values: Values) -> str:
    """Return the key of `DOMAINS` that fits images with these values.

    Returns "unknown" if the values fit several scales, as those of a blank image or of
    nothing but soft tissue do.
    """
    low, high, dense = values
    if low < AIR_HU:  # or padding outside the field of view
        return "unsigned" if dense > MAX_DENSE_FRACTION else "HU"
    if low == high:
        return "unknown"
    if high <= 1 or (low < 0 and max(-low, high) <= SCALED):
        return "unit"
    if low < 0:
        return "unsigned" if dense > MAX_DENSE_FRACTION else "unknown"
    return "8-bit" if high <= 255 else "unsigned"


def require_intensity(
    values: Values,
    trained_on: str,
    where: str,
    *,
    volume: str = "unknown",
    is_dicom: bool = False,
) -> str:
    """Return the domain of images with these values, if a network may be applied.

    Args:
      values: statistics of the images.
      trained_on: the training images' key of `DOMAINS`.
      where: name of the input, for the error.
      volume: the detected key of the volume, if the images are slices of one.
      is_dicom: whether the images are DICOM files.

    Returns:
      The detected key of `DOMAINS`: `trained_on`, or anything if either is "unknown"; or
      what a part of the `volume` may seem to have.

    Raises:
      UserError: the values are on another scale, so a mask would be meaningless.
    """
    domain = detect_intensity(values)
    low, high, dense = values
    is_possible = max(-low, high) <= MAX_VALUE
    may_be_part = domain in _OF_PARTS.get(volume, ()) and dense <= MAX_DENSE_FRACTION
    if domain == trained_on or "unknown" in (domain, trained_on):
        return domain
    if may_be_part and is_possible:
        return domain
    kind, remedy = DOMAINS[domain], _REMEDIES[domain]
    if not is_possible:
        kind, remedy = "values that no CT scan has", _REMEDY_FAR
    elif is_dicom and domain == "unsigned":
        remedy = _REMEDY_DICOM
    raise UserError(
        f"{where} has {kind} ({low:g} to {high:g}); the network was trained on "
        f"{DOMAINS[trained_on]}.",
        rule="images have the same units in training and in prediction.",
        remedy=remedy,
    )


def checked_slices(
    images: Iterable[np.ndarray],
    trained_on: str,
    name: str,
    *,
    volume: str,
    is_dicom: bool = False,
) -> Iterator[np.ndarray]:
    """Yield slices, each checked: one in other units may not show in the values of all.

    Args:
      images: slices `[h w]` of a volume.
      trained_on, volume, is_dicom: see `require_intensity`.
      name: of the volume, for the error.

    Raises:
      UserError: the values of a slice are on another scale.
    """
    for k, image in enumerate(images):
        where = f"slice {k} of {name}"
        require_intensity(
            values_of([image]), trained_on, where, volume=volume, is_dicom=is_dicom
        )
        yield image


def require_finite(array: np.ndarray, what: str) -> None:
    """Refuse an array with NaN or infinite values.

    Raises:
      UserError: a value is not finite; `what` names the array.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(
            f"{what} has NaN or infinite pixels.",
            rule="finite values.",
            remedy="set these pixels to the value of air, -1000 HU.",
        )
