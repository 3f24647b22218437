"""Changes of geometry: pixel size, field of view, orientation.

Each maps an image `[h w]` and a mask `[h w]`, with a level and a random generator, to
another image and mask, which may have another size.
"""

from collections.abc import Callable

import cv2
import numpy as np

from . import anatomy

Changed = tuple[np.ndarray, np.ndarray]


def pixel_size(image, mask, mm, rng) -> Changed:
    """Resample to pixels of `mm`: area averages, as a coarser matrix measures them."""
    return resample(image, mask, anatomy.pixel_mm(mask.shape) / mm)


def small_chest(image, mask, share, rng) -> Changed:
    """Show the chest at a `share` of its size, off center, in air."""
    image = anatomy.fill_padding(image, rng)
    small, small_mask = resample(image, mask, share)
    canvas = anatomy.air(image, mask.shape, rng)
    canvas_mask = np.zeros_like(mask)
    free = [a - b for a, b in zip(mask.shape, small.shape, strict=True)]
    top, left = (round(f * rng.uniform(0.3, 0.7)) for f in free)
    where = slice(top, top + small.shape[0]), slice(left, left + small.shape[1])
    canvas[where], canvas_mask[where] = small, small_mask
    return canvas, canvas_mask


def crop_to_chest(image, mask, margin_mm, rng) -> Changed:
    """Cut out both lungs with a margin: 40 mm keep most of the chest wall, 5 mm cut it."""
    return _crop(
        image, mask, anatomy.box(mask, margin_mm / anatomy.pixel_mm(mask.shape))
    )


def crop_to_lung(image, mask, margin_mm, rng) -> Changed:
    """Cut out one lung with a margin; there is no air around the body."""
    lung = anatomy.one_lung(mask, rng)
    return _crop(
        image, mask, anatomy.box(lung, margin_mm / anatomy.pixel_mm(mask.shape))
    )


def orientation(image, mask, name, rng) -> Changed:
    """Mirror or turn the slice, or turn the patient on the couch."""
    return ORIENTATIONS[name](image, mask, rng)


def resample(image: np.ndarray, mask: np.ndarray, scale: float) -> Changed:
    """Scale an image and a mask: area averages downwards, cubic upwards."""
    if scale == 1:
        return image, mask
    size = [max(8, round(n * scale)) for n in mask.shape[::-1]]
    smooth, crisp = cv2.INTER_AREA, cv2.INTER_AREA
    if scale > 1:
        smooth, crisp = cv2.INTER_CUBIC, cv2.INTER_LINEAR
    share = cv2.resize(mask.astype(np.float32), size, interpolation=crisp)
    return cv2.resize(image, size, interpolation=smooth), share > 0.5


def _turn(times: int) -> Callable[..., Changed]:
    return lambda image, mask, rng: (np.rot90(image, times), np.rot90(mask, times))


def _mirror(image, mask, rng) -> Changed:
    return image[:, ::-1], mask[:, ::-1]


def _tilt(degrees: float) -> Callable[..., Changed]:
    def tilt(image, mask, rng):
        image = anatomy.fill_padding(image, rng)
        h, w = mask.shape
        matrix = cv2.getRotationMatrix2D((w / 2 - 0.5, h / 2 - 0.5), degrees, 1.0)
        outside, _ = anatomy.room_air(image)
        turned = cv2.warpAffine(
            image, matrix, (w, h), flags=cv2.INTER_CUBIC, borderValue=outside
        )
        share = cv2.warpAffine(mask.astype(np.float32), matrix, (w, h))
        return turned, share > 0.5

    return tilt


def _prone(image, mask, rng) -> Changed:
    """Turn the patient by 180 degrees and leave the couch below."""
    image = anatomy.fill_padding(image, rng)
    inside = anatomy.body(image, mask)
    skin = cv2.dilate(inside.astype(np.uint8), anatomy.disk(2)) > 0
    couch = np.where(skin, anatomy.air(image, mask.shape, rng), image)
    turned = [np.rot90(array, 2) for array in (image, skin, mask)]
    rows = np.nonzero(skin.any(axis=1))[0]
    down = rows[-1] - (len(skin) - 1 - rows[0])  # the patient rests on the couch again
    image, skin, mask = (_shift(array, down) for array in turned)
    return np.where(skin, image, couch), mask


def _shift(array: np.ndarray, rows: int) -> np.ndarray:
    """Move an array down; what is left empty has zeros."""
    shifted = np.zeros_like(array)
    if rows >= 0:
        shifted[rows:] = array[: len(array) - rows]
    else:
        shifted[:rows] = array[-rows:]
    return shifted


def _crop(image, mask, where) -> Changed:
    return image[where], mask[where]


ORIENTATIONS = {
    "mirrored": _mirror,
    "prone": _prone,
    "tilted by 20": _tilt(20),
    "turned by 90": _turn(1),
    "turned by 180": _turn(2),
    "turned by 270": _turn(3),
}
