"""Conversion of slices to network inputs, and of network outputs back to slices.

A slice of any size is scaled to `image_size` along its longer side and centered in a
square, and `to_slice` inverts exactly that. Downscaling averages areas, so a mask becomes
the fraction of lung under each pixel.

The preprocessing `hu` keeps Hounsfield units, so that augmentation can imitate scanners
and diseases; the compiled programs then clip them to a window and scale it to [0, 1]
(`Preprocessing.to_unit`). `window` does that before the resizing, as version 0.1 did.
`seed` reproduces the original notebooks for comparison: the result of
`cv2.imread(path, 1)` on int16 (the high byte of each pixel, as three equal channels), a
5x5 blur, and division by 255.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import cv2
import numpy as np

CHANNELS = {"hu": 1, "window": 1, "seed": 3}  # of the network, by kind
CT_WINDOW_HU = (-1000.0, 400.0)
WIDEST_HU = 20_000.0
BELOW, ABOVE = 0.05, 0.5  # of the width of a window: what is kept on its sides
INT16 = np.iinfo(np.int16)

Array = TypeVar("Array")  # of NumPy or of JAX


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How slices become the input of a network.

    Attributes:
      kind: key of `CHANNELS`.
      image_size: side of the network's input.
      window_hu: values that become 0 and 1.
    """

    kind: str
    image_size: int
    window_hu: tuple[float, float]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Preprocessing":
        """Return what `to_json` wrote."""
        return cls(
            kind=content["preprocessing"],
            image_size=content["image_size"],
            window_hu=tuple(content["window_hu"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of "preprocessing" in bundle.json."""
        return {
            "preprocessing": self.kind,
            "image_size": self.image_size,
            "window_hu": list(self.window_hu),
        }

    @property
    def channels(self) -> int:
        """The channels of the network's input."""
        return CHANNELS[self.kind]

    @property
    def image_dtype(self) -> np.dtype:
        """The dtype of images as they are kept on devices."""
        return np.dtype(np.int16 if self.kind == "hu" else np.float32)

    def image(self, image: np.ndarray, aspect: float = 1.0) -> np.ndarray:
        """Convert an image `[h w]` to what is kept on devices, `[s s c]`.

        `to_unit` makes it the network's input.

        Args:
          image: with its original values, such as Hounsfield units.
          aspect: height of a pixel over its width; the network sees square pixels.

        Returns:
          int16 under `hu`: Hounsfield units, clipped to 70 HU below and 700 HU above the
          window for a window of 1400 HU, and likewise for others. Other values, which are
          those whose window starts at 0 or above (or is too wide for int16 with its
          margins), are mapped linearly from their window to `CT_WINDOW_HU`. Otherwise
          float32 in [0, 1].
        """
        low, high = self.window_hu
        fill = 0.0
        if self.kind == "seed":
            scaled = cv2.GaussianBlur(_eight_bit(image), (5, 5), 0)
            scaled = scaled.astype(np.float32) / 255
        elif self.kind == "window":
            scaled = (np.clip(image.astype(np.float32), low, high) - low) / (high - low)
        else:
            scaled = _to_hounsfield(image, self.window_hu)
            fill = _stored_window(self.window_hu)[0]
        square = _to_square(scaled, self.image_size, fill, aspect)
        if self.kind == "hu":
            square = np.rint(square).astype(np.int16)
        return np.repeat(square[..., None], self.channels, axis=-1)

    def to_unit(self, images: Array) -> Array:
        """Convert what `image` returned to the network's input, in [0, 1].

        Args:
          images: of any shape, arrays of NumPy or of JAX.
        """
        if self.kind != "hu":
            return images
        low, high = _stored_window(self.window_hu)
        return (images.astype(np.float32).clip(low, high) - low) / (high - low)

    def of_hounsfield(self) -> "Preprocessing":
        """Return that of images in Hounsfield units that are mixed with these."""
        if _is_hounsfield(self.window_hu):
            return self
        return dataclasses.replace(self, window_hu=CT_WINDOW_HU)

    def mask(self, mask: np.ndarray, *, soft: bool, aspect: float = 1.0) -> np.ndarray:
        """Convert a mask `[h w]` in {0, 1} to float32 `[s s]` in [0, 1].

        A soft mask holds the fraction of lung under each pixel; a hard one is 1 where that
        is at least a half.
        """
        square = _to_square(self.soften(mask), self.image_size, aspect=aspect)
        return square if soft else (square >= 0.5).astype(np.float32)

    def soften(self, mask: np.ndarray) -> np.ndarray:
        """Convert a mask `[h w]` to float32, blurred under `seed` as in the notebooks."""
        if self.kind == "seed":
            blurred = cv2.GaussianBlur(mask * np.uint8(255), (5, 5), 0)
            return blurred.astype(np.float32) / 255
        return mask.astype(np.float32)

    def true_mask(self, mask: np.ndarray, *, threshold: float) -> np.ndarray:
        """Return the boolean mask `[h w]` that a prediction is scored against.

        Under `seed` this is the blurred mask, thresholded like the prediction, as in the
        notebooks.
        """
        return self.soften(mask) > (threshold if self.kind == "seed" else 0.5)


def to_slice(
    square: np.ndarray, shape: tuple[int, int], aspect: float = 1.0
) -> np.ndarray:
    """Resize a network output `[s s]` to a slice of `shape`, float32, bilinearly."""
    top, left, height, width = _placement(shape, square.shape[0], aspect)
    inner = np.ascontiguousarray(square[top : top + height, left : left + width])
    return cv2.resize(inner, shape[::-1], interpolation=cv2.INTER_LINEAR)


def _to_hounsfield(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Clip a little beyond the window; see `Preprocessing.image`."""
    low, high = window
    image = image.astype(np.float32)
    np.clip(image, *_kept_range(window), out=image)
    stored_low, stored_high = _stored_window(window)
    image -= low
    image *= (stored_high - stored_low) / (high - low)
    image += stored_low
    return image


def _stored_window(window: tuple[float, float]) -> tuple[float, float]:
    return window if _is_hounsfield(window) else CT_WINDOW_HU


def _is_hounsfield(window: tuple[float, float]) -> bool:
    low, high = window
    lowest, highest = _kept_range(window)
    fits = INT16.min <= lowest and highest <= INT16.max
    return low < 0 and high <= WIDEST_HU and fits


def _kept_range(window: tuple[float, float]) -> tuple[float, float]:
    low, high = window
    return low - BELOW * (high - low), high + ABOVE * (high - low)


def _to_square(
    image: np.ndarray, size: int, fill: float = 0.0, aspect: float = 1.0
) -> np.ndarray:
    top, left, height, width = _placement(image.shape, size, aspect)
    smaller = min(height, image.shape[0]), min(width, image.shape[1])
    scaled = cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA)
    scaled = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_LINEAR)
    square = np.full((size, size), fill, np.float32)
    square[top : top + height, left : left + width] = scaled
    return square


def _placement(
    shape: tuple[int, ...], size: int, aspect: float = 1.0
) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a slice of `shape` in a square of `size`."""
    sides = shape[0] * aspect, shape[1]
    height, width = (max(1, round(side * size / max(sides))) for side in sides)
    return (size - height) // 2, (size - width) // 2, height, width


def _eight_bit(image: np.ndarray) -> np.ndarray:
    """Keep the high byte of each 16-bit pixel, as an 8-bit reader does."""
    if image.dtype == np.uint8:
        return image
    return (image.astype(np.int16).view(np.uint16) >> 8).astype(np.uint8)
