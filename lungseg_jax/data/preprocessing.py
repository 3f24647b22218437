"""Slices to network inputs and network outputs back to slices.

A slice of any size is scaled so that its longer side is `image_size` and centred in a
square; `to_slice` undoes exactly that. Scaling down averages areas, so a mask becomes
the share of lung under each pixel.

The preprocessing `window` clips to a window of Hounsfield units and scales to [0, 1].
`seed` repeats the notebooks' own for comparison: what `cv2.imread(path, 1)` made of
int16 (the high byte of each pixel, as three equal channels), a 5x5 blur, division by
255.
"""

import cv2
import numpy as np

PREPROCESSING = {"window": 1, "seed": 3}  # by name: the channels of the network input


def image_to_network(
    image: np.ndarray,
    *,
    preprocessing: str,
    image_size: int,
    window_hu: tuple[float, float],
) -> np.ndarray:
    """An image `[h w]` with its true values -> float32 `[image_size image_size c]`."""
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
    """A mask `[h w]` in {0, 1} -> float32 `[image_size image_size]` in [0, 1].

    Soft masks hold the share of lung under each pixel; hard ones are 1 from a half up.
    """
    square = _to_square(soften(mask, preprocessing=preprocessing), image_size)
    return square if soft else (square >= 0.5).astype(np.float32)


def soften(mask: np.ndarray, *, preprocessing: str) -> np.ndarray:
    """The mask `[h w]` as float32; under `seed` blurred as the notebooks blurred it."""
    if preprocessing == "seed":
        return (
            cv2.GaussianBlur(mask * np.uint8(255), (5, 5), 0).astype(np.float32) / 255
        )
    return mask.astype(np.float32)


def true_mask(mask: np.ndarray, *, preprocessing: str, threshold: float) -> np.ndarray:
    """The mask `[h w]` that a prediction is scored against, boolean.

    Under `seed` the blurred mask is cut at the threshold of the prediction, as in the
    notebooks.
    """
    soft = soften(mask, preprocessing=preprocessing)
    return soft > (threshold if preprocessing == "seed" else 0.5)


def to_slice(square: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A network output `[s s]` -> float32 of a slice's `shape`, bilinearly."""
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
    """Top, left, height and width of a slice of `shape` in a square of `size`."""
    height, width = (max(1, round(side * size / max(shape))) for side in shape)
    return (size - height) // 2, (size - width) // 2, height, width


def _eight_bit(image: np.ndarray) -> np.ndarray:
    """What an 8-bit reader keeps of a 16-bit pixel: its high byte."""
    if image.dtype == np.uint8:
        return image
    return (image.astype(np.int16).view(np.uint16) >> 8).astype(np.uint8)
