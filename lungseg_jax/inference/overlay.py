"""Pictures of a mask on its slice, and of what is wrong with it."""

import cv2
import numpy as np

OUTLINE = (28, 159, 255)  # blue, green, red, as OpenCV has them: orange
MISSED = (255, 208, 53)  # blue
DOUBT = (60, 40, 230)  # red
TILE = 256  # side of a slice in a sheet, pixels


def overlay(
    image: np.ndarray,
    mask: np.ndarray,
    uncertainty: np.ndarray,
    *,
    window_hu: tuple[float, float],
) -> np.ndarray:
    """The slice in gray, the mask's outline in orange, doubt in red.

    Args:
      image: `[h w]` with its true values.
      mask: `[h w]` bool.
      uncertainty: `[h w]` in bits, 0 to 1.
      window_hu: values shown as black and as white.

    Returns:
      uint8 `[h w 3]`, blue green red.
    """
    weight = 0.7 * np.clip(uncertainty, 0, 1)[..., None]
    picture = gray(image, window_hu=window_hu)[..., None]
    return _outlined(_blended(picture, DOUBT, weight), mask)


def error_overlay(
    image: np.ndarray,
    mask: np.ndarray,
    truth: np.ndarray,
    *,
    window_hu: tuple[float, float],
) -> np.ndarray:
    """The slice in gray, the mask's outline in orange; too much orange, missed blue.

    Args: those of `overlay`, and `truth` `[h w]` bool.

    Returns:
      uint8 `[h w 3]`, blue green red.
    """
    picture = np.repeat(gray(image, window_hu=window_hu)[..., None], 3, axis=-1)
    for where, color in ((mask & ~truth, OUTLINE), (truth & ~mask, MISSED)):
        picture = _blended(picture, color, 0.75 * where[..., None])
    return _outlined(picture, mask)


def gray(image: np.ndarray, *, window_hu: tuple[float, float]) -> np.ndarray:
    """The slice alone, uint8 `[h w]`."""
    low, high = window_hu
    scaled = (np.clip(image.astype(np.float32), low, high) - low) / (high - low) * 255
    return scaled.astype(np.uint8)


def resize_to_fit(picture: np.ndarray, side: int) -> np.ndarray:
    """`[h w]` or `[h w 3]`, scaled so that the longer side has `side` pixels."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(picture, size, interpolation=how)


def _blended(picture, color, weight):
    return (picture * (1 - weight) + np.array(color) * weight).astype(np.uint8)


def _outlined(picture, mask):
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    return cv2.drawContours(np.ascontiguousarray(picture), outlines, -1, OUTLINE, 1)


class ContactSheet:
    """Some slices of a volume side by side, with their numbers.

    Args:
      count: slices of the volume.
      most: slices on the sheet, evenly spaced.
    """

    def __init__(self, count: int, most: int = 16):
        self._shown = set(
            np.linspace(0, count - 1, min(count, most)).round().astype(int)
        )
        self._columns = int(np.ceil(np.sqrt(len(self._shown))))
        self._tiles: list[np.ndarray] = []

    def includes(self, k: int) -> bool:
        """Whether slice `k` is on the sheet."""
        return k in self._shown

    def add(self, k: int, picture: np.ndarray, *, review: bool) -> None:
        """Slice `k` as `overlay` gave it; `review` is said on it."""
        small = resize_to_fit(picture, TILE)
        tile = np.zeros((TILE, TILE, 3), np.uint8)
        tile[: small.shape[0], : small.shape[1]] = small
        text = f"{k} review" if review else f"{k}"
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(tile, text, (6, 18), font, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        self._tiles.append(tile)

    def picture(self) -> np.ndarray:
        """uint8 `[h w 3]`, blue green red."""
        blank = np.zeros((TILE, TILE, 3), np.uint8)
        fill = -len(self._tiles) % self._columns
        tiles = self._tiles + [blank] * fill
        rows = [
            np.concatenate(tiles[i : i + self._columns], axis=1)
            for i in range(0, len(tiles), self._columns)
        ]
        return np.concatenate(rows, axis=0)
