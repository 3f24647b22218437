"""Validation of arrays that callers pass as images."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lungseg_jax.data.intensity import require_finite
from lungseg_jax.runtime.errors import UserError

MOST_CHANNELS = 4  # RGBA
SCAN_LIBRARIES = ("SimpleITK", "nibabel")


def is_scan(value: Any) -> bool:
    """Return whether a value is of a library of scans; none of them is imported."""
    return any(c.__module__.startswith(SCAN_LIBRARIES) for c in type(value).__mro__)


def as_images(images: Any, *, dimensions: tuple[int, ...]) -> np.ndarray:
    """Return finite numbers as an array, if it has an allowed number of dimensions.

    Args:
      images: an array, or what NumPy converts.
      dimensions: of 2, for `[h w]`, and 3, for `[n h w]`.

    Raises:
      UserError: it is not such an array.
    """
    _require_plain(images)
    try:
        images = np.asarray(images)
    except (TypeError, RuntimeError) as e:  # as of a tensor on a GPU
        raise UserError(
            f"{type(images).__name__} cannot be made an array of NumPy: {e}",
            rule="an array of NumPy, or what NumPy converts.",
            remedy="such as tensor.detach().cpu().numpy() for one of PyTorch.",
        ) from e
    except ValueError as e:
        raise UserError(
            "the images differ in size.",
            rule="an array has slices of one size.",
            remedy="pass them one by one, or to `stream`.",
        ) from e
    is_numeric = images.dtype.kind in "iuf"
    if images.ndim not in dimensions or not is_numeric or not images.size:
        shapes = {2: "[h w]", 3: "[n h w]"}
        raise UserError(
            f"an array of {images.dtype}{list(images.shape)} is not an image.",
            rule=f"integers or floats of NumPy, "
            f"{' or '.join(shapes[d] for d in dimensions)}.",
        )
    if images.ndim == 3 and images.shape[-1] <= MOST_CHANNELS < images.shape[-2]:
        raise UserError(
            f"an array of {list(images.shape)} has its channels last.",
            rule="slices are gray, [h w] or [n h w].",
            remedy="pass array[..., 0] if all channels are the same.",
        )
    require_finite(images, "the array")
    return images


def checked_images(
    slices: Iterable[tuple[np.ndarray, float | None]],
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the slices `[h w]` with the heights of their pixels over the widths.

    Raises:
      UserError: an array is not a slice, or has no aspect.
    """
    for number, (image, aspect) in enumerate(slices):
        if aspect is None or not 0 < aspect < math.inf:
            raise UserError(
                f"image {number} has no aspect.",
                rule="the height of a pixel over its width, a positive number, for each.",
            )
        yield as_images(image, dimensions=(2,)), aspect


def _require_plain(images: Any, *, is_part: bool = False) -> None:
    """Refuse what NumPy would take apart or fill with values, in lists too."""
    if isinstance(images, np.ma.MaskedArray):
        raise UserError(
            "a masked array is not an image.",
            rule="every pixel has a value.",
            remedy="fill it with the value of air: array.filled(-1000).",
        )
    if is_part and is_scan(images):
        raise UserError(
            f"a list of scans ({type(images).__name__}) is not an image.",
            rule="a scan is an image of SimpleITK or nibabel by itself.",
            remedy="pass the images one by one.",
        )
    if isinstance(images, list | tuple):
        for part in images:
            _require_plain(part, is_part=True)
