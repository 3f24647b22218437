"""Pictures of a mask on its slice, and of its errors.

Pictures are uint8 `[h w]` or `[h w 3]`, blue green red as in OpenCV.
"""

import cv2
import numpy as np

OUTLINE = (28, 159, 255)  # orange
LEFT_OUTLINE = MISSED = (255, 208, 53)  # blue
UNCERTAIN = (60, 40, 230)  # red
# Side of a picture, pixels: spacings may be damaged, and JPEG has a limit.
MAX_SIDE = 4096
# Full color resolution keeps outlines of one pixel sharp.
_JPEG = [
    cv2.IMWRITE_JPEG_QUALITY,
    85,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]


def overlay(
    image: np.ndarray,
    mask: np.ndarray,
    uncertainty: np.ndarray,
    *,
    window_hu: tuple[float, float],
) -> np.ndarray:
    """Draw the slice in gray, the mask's outline in orange and uncertainty in red.

    Args:
      image: `[h w]`, its original values.
      mask: `[h w]` bool.
      uncertainty: `[h w]` in bits, 0 to 1.
      window_hu: values shown as black and as white.

    Returns:
      A picture `[h w 3]`.
    """
    weight = 0.7 * np.clip(uncertainty, 0, 1)[..., None]
    picture = gray_bgr(image, window_hu=window_hu)
    return draw_outline(_blend(picture, UNCERTAIN, weight), mask)


def error_overlay(
    image: np.ndarray,
    mask: np.ndarray,
    truth: np.ndarray,
    *,
    window_hu: tuple[float, float],
) -> np.ndarray:
    """Draw the slice in gray with false positives in orange, missed lung in blue.

    The outline of the mask is orange, too.

    Args:
      image: `[h w]`, its original values.
      mask: `[h w]` bool.
      truth: `[h w]` bool.
      window_hu: values shown as black and as white.

    Returns:
      A picture `[h w 3]`.
    """
    picture = gray_bgr(image, window_hu=window_hu)
    for where, color in ((mask & ~truth, OUTLINE), (truth & ~mask, MISSED)):
        picture = _blend(picture, color, 0.75 * where[..., None])
    return draw_outline(picture, mask)


def gray(image: np.ndarray, *, window_hu: tuple[float, float]) -> np.ndarray:
    """Draw only the slice, as a picture `[h w]`."""
    low, high = window_hu
    scaled = (np.clip(image.astype(np.float32), low, high) - low) / (high - low) * 255
    return scaled.astype(np.uint8)


def gray_bgr(image: np.ndarray, *, window_hu: tuple[float, float]) -> np.ndarray:
    """Draw only the slice, as a picture `[h w 3]` to draw on."""
    return np.repeat(gray(image, window_hu=window_hu)[..., None], 3, axis=-1)


def draw_outline(
    picture: np.ndarray, mask: np.ndarray, color: tuple[int, int, int] = OUTLINE
) -> np.ndarray:
    """Draw the outline of a mask `[h w]` on a picture `[h w 3]`."""
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    return cv2.drawContours(np.ascontiguousarray(picture), outlines, -1, color, 1)


def resize_to_fit(picture: np.ndarray, side: int) -> np.ndarray:
    """Scale a picture so that its longer side has `side` pixels."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(picture, size, interpolation=interpolation)


def stretch(plane: np.ndarray, factor: float) -> np.ndarray:
    """Scale the height of a plane `[h w ...]` by a factor: linearly, but for uint8.

    Both sides are scaled down if one would be longer than MAX_SIDE.
    """
    height, width = plane.shape[0] * factor, plane.shape[1]
    scale = min(1, MAX_SIDE / max(height, width))
    kind = cv2.INTER_NEAREST if plane.dtype == np.uint8 else cv2.INTER_LINEAR
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(plane, size, interpolation=kind)


def encode_jpeg(picture: np.ndarray) -> bytes:
    """Return a picture as a JPEG file, a third of the size of its PNG for CT."""
    _, content = cv2.imencode(".jpg", np.ascontiguousarray(picture), _JPEG)
    return content.tobytes()


def _blend(picture: np.ndarray, color: tuple, weight: np.ndarray) -> np.ndarray:
    return (picture * (1 - weight) + np.array(color) * weight).astype(np.uint8)
