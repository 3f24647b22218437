"""Conversion of slices to network inputs, and of network outputs back to slices.

A slice of any size is scaled to `image_size` along its longer side and centred in a
square, and `to_slice` inverts exactly that. Downscaling averages areas, so a mask becomes
the fraction of lung under each pixel.

The preprocessing `window` clips to a window of Hounsfield units and scales to [0, 1].
`seed` reproduces the original notebooks for comparison: the result of
`cv2.imread(path, 1)` on int16 (the high byte of each pixel, as three equal channels), a
5x5 blur, and division by 255.
"""

import cv2
import numpy as np

PREPROCESSING = {"window": 1, "seed": 3}  # channels of the network input, by name


def image_to_network(
    image: np.ndarray,
    *,
    preprocessing: str,
    image_size: int,
    window_hu: tuple[float, float],
) -> np.ndarray:
    """Convert an image `[h w]` to a network input, float32 `[image_size image_size c]`.

    Args:
      image: with its original values, such as Hounsfield units.
      preprocessing: key of `PREPROCESSING`.
      image_size: side of the network input.
      window_hu: values that `window` maps to 0 and 1.
    """
    if preprocessing == "seed":
        scaled = cv2.GaussianBlur(_eight_bit(image), (5, 5), 0).astype(np.float32) / 255
    else:
        low, high = window_hu
        scaled = (np.clip(image.astype(np.float32), low, high) - low) / (high - low)
    square = _to_square(scaled, image_size)
    return np.repeat(square[..., None], PREPROCESSING[preprocessing], axis=-1)


def mask_to_network(
    mask: np.ndarray, *, preprocessing: str, image_size: int, soft: bool
) -> np.ndarray:
    """Convert a mask `[h w]` in {0, 1} to float32 `[image_size image_size]` in [0, 1].

    A soft mask holds the fraction of lung under each pixel; a hard one is 1 where that is
    at least a half.
    """
    square = _to_square(soften(mask, preprocessing=preprocessing), image_size)
    return square if soft else (square >= 0.5).astype(np.float32)


def soften(mask: np.ndarray, *, preprocessing: str) -> np.ndarray:
    """Convert a mask `[h w]` to float32, blurred under `seed` as in the notebooks."""
    if preprocessing == "seed":
        return (
            cv2.GaussianBlur(mask * np.uint8(255), (5, 5), 0).astype(np.float32) / 255
        )
    return mask.astype(np.float32)


def true_mask(mask: np.ndarray, *, preprocessing: str, threshold: float) -> np.ndarray:
    """Return the boolean mask `[h w]` that a prediction is scored against.

    Under `seed` this is the blurred mask, thresholded like the prediction, as in the
    notebooks.
    """
    soft = soften(mask, preprocessing=preprocessing)
    return soft > (threshold if preprocessing == "seed" else 0.5)


def to_slice(square: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a network output `[s s]` to a slice of `shape`, float32, bilinearly."""
    top, left, height, width = _placement(shape, square.shape[0])
    inner = np.ascontiguousarray(square[top : top + height, left : left + width])
    return cv2.resize(inner, shape[::-1], interpolation=cv2.INTER_LINEAR)


def _to_square(image: np.ndarray, size: int) -> np.ndarray:
    top, left, height, width = _placement(image.shape, size)
    shrinks = height < image.shape[0] or width < image.shape[1]
    scaled = cv2.resize(
        image,
        (width, height),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    square = np.zeros((size, size), np.float32)
    square[top : top + height, left : left + width] = scaled
    return square


def _placement(shape: tuple[int, ...], size: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a slice of `shape` in a square of `size`."""
    height, width = (max(1, round(side * size / max(shape))) for side in shape)
    return (size - height) // 2, (size - width) // 2, height, width


def _eight_bit(image: np.ndarray) -> np.ndarray:
    """Keep the high byte of each 16-bit pixel, as an 8-bit reader does."""
    if image.dtype == np.uint8:
        return image
    return (image.astype(np.int16).view(np.uint16) >> 8).astype(np.uint8)
