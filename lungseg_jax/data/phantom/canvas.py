"""A CT image to paint on, and shapes to paint.

In patient coordinates, x points to the right of the image (the patient's left), y to the
back, and one unit is half the width of the thoracic cavity. Lines and outlines are float
arrays `[points 2]`.
"""

import copy

import cv2
import numpy as np

_SUBPIXEL_BITS = 4
_THETA = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_CIRCLE = np.stack([np.cos(_THETA), np.sin(_THETA)], axis=1)
_ORDER = np.arange(2, 6)[:, None]

Organ = tuple[list[np.ndarray], float]  # outlines [points 2], HU


class Canvas:
    """An image, float32 `[size size]` in HU, and the placement of the patient in it.

    Args:
      size: height and width in pixels.
      frame: affine map `[2 3]` from patient coordinates to fractions of the image width.
      background_hu: initial value of the image.
    """

    def __init__(self, size: int, frame: np.ndarray, background_hu: float):
        self.size = size
        self.image = np.full((size, size), background_hu, np.float32)
        self._matrix = frame[:, :2] * size
        # In OpenCV, integer coordinates are the centers of pixels, not their corners.
        self._origin = frame[:, 2] * size - 0.5
        self.unit_px = float(np.sqrt(abs(np.linalg.det(self._matrix))))

    def overlay(self, image: np.ndarray) -> "Canvas":
        """Return a canvas for another image, float32 `[size size]`, in the same frame."""
        canvas = copy.copy(self)
        canvas.image = image
        return canvas

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Convert patient coordinates `[... 2]` to pixels."""
        return points @ self._matrix.T + self._origin

    def coarse_grid(self, cells: int) -> np.ndarray:
        """Return a grid of patient coordinates that covers the image, `[cells cells 2]`."""
        axis = (np.arange(cells) + 0.5) * self.size / cells - 0.5
        pixels = np.stack(np.meshgrid(axis, axis), axis=-1)
        return (pixels - self._origin) @ np.linalg.inv(self._matrix).T

    def paint(
        self,
        outline: np.ndarray | None,
        hu: float,
        alpha: float = 1.0,
        *,
        within: np.ndarray | None = None,
    ) -> None:
        """Fill an outline in patient coordinates; None paints nothing.

        Args:
          outline: `[points 2]`.
          hu: value to paint.
          alpha: opacity, from 0 to 1.
          within: coverage, uint8 `[size size]`, that limits the painted area.
        """
        if outline is not None:
            self.paint_pixels(self.to_pixels(outline), hu, alpha, within=within)

    def paint_pixels(
        self,
        outline: np.ndarray,
        hu: float,
        alpha: float = 1.0,
        *,
        within: np.ndarray | None = None,
    ) -> None:
        """Fill an outline in pixels, otherwise like `paint`."""
        left, top = (min(max(int(x) - 2, 0), self.size) for x in outline.min(0))
        right, bottom = (min(max(int(x) + 4, 0), self.size) for x in outline.max(0))
        if left >= right or top >= bottom:
            return
        box = np.s_[top:bottom, left:right]
        cover = np.zeros((bottom - top, right - left), np.uint8)
        fill(cover, outline - [left, top])
        if within is not None:
            cover = cv2.min(cover, within[box])
        window = self.image[box]
        window += (hu - window) * (cover * np.float32(alpha / 255))

    def paint_union(
        self,
        outlines: list[np.ndarray],
        hu: float,
        *,
        within: np.ndarray | None = None,
    ) -> None:
        """Fill the union of outlines in patient coordinates, otherwise like `paint`."""
        if outlines:
            cover = self.cover(*outlines)
            self.paint_cover(cover if within is None else cv2.min(cover, within), hu)

    def paint_cover(self, cover: np.ndarray, hu: float) -> None:
        """Blend a value into the image by a coverage, uint8 `[size size]`."""
        left, top, width, height = cv2.boundingRect(cover)
        box = np.s_[top : top + height, left : left + width]
        window = self.image[box]
        window += (hu - window) * (cover[box] * np.float32(1 / 255))

    def cover(self, *outlines: np.ndarray) -> np.ndarray:
        """Return the union of outlines as anti-aliased coverage, uint8 `[size size]`."""
        layer = np.zeros((self.size, self.size), np.uint8)
        for outline in outlines:
            fill(layer, self.to_pixels(outline))
        return layer


def fill(layer: np.ndarray, outline: np.ndarray, value: float = 255) -> None:
    """Fill an outline in pixels on a uint8 layer, the only dtype OpenCV anti-aliases."""
    fixed = np.rint(outline * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(layer, [fixed], value, cv2.LINE_AA, _SUBPIXEL_BITS)


def closed_curve(points: np.ndarray, steps: int = 8) -> np.ndarray:
    """Return the closed Catmull-Rom curve through the points, `[points*steps 2]`."""
    t = (np.arange(steps) / steps)[None, :, None]
    padded = np.concatenate([points[-1:], points, points[:2]])[:, None]
    p0, p1, p2, p3 = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    slope, bend, twist = p2 - p0, 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * (p1 - p2) + p3 - p0
    return (p1 + 0.5 * t * (slope + t * (bend + t * twist))).reshape(-1, 2)


def bezier(controls: np.ndarray) -> np.ndarray:
    """Return the Bezier curve from the first to the last control point, `[12 2]`."""
    t = np.linspace(0, 1, 12)[:, None, None]
    while controls.shape[-2] > 1:
        controls = (1 - t) * controls[..., :-1, :] + t * controls[..., 1:, :]
    return controls[:, 0]


def blob(
    rng: np.random.Generator,
    center: np.ndarray | tuple[float, float],
    radii: np.ndarray | tuple[float, float],
    *,
    tilt: float = 0.0,
    wobble: float = 0.05,
) -> np.ndarray:
    """Draw an ellipse, rotated by `tilt` radians, whose radius varies by `wobble`."""
    waves = np.cos(_ORDER * _THETA + rng.uniform(0, 2 * np.pi, (4, 1)))
    radius = 1 + wobble * (rng.normal(size=4) / _ORDER[:, 0]) @ waves
    points = _CIRCLE * radius[:, None] * radii
    cos, sin = np.cos(tilt), np.sin(tilt)
    return points @ np.array([[cos, sin], [-sin, cos]]) + center


def stroke(line: np.ndarray, widths: np.ndarray | float) -> np.ndarray:
    """Return the outline of a line drawn with a pen of the given width.

    Args:
      line: `[... points 2]`.
      widths: of the pen, `[... points]` or one for all.

    Returns:
      Outlines `[... 2*points 2]`.
    """
    along = np.empty_like(line)
    along[..., 1:-1, :] = line[..., 2:, :] - line[..., :-2, :]
    along[..., 0, :] = line[..., 1, :] - line[..., 0, :]
    along[..., -1, :] = line[..., -1, :] - line[..., -2, :]
    along /= np.sqrt((along**2).sum(-1, keepdims=True)) + 1e-9
    half = along[..., ::-1] * [-0.5, 0.5] * np.asarray(widths)[..., None]
    return np.concatenate([line + half, (line - half)[..., ::-1, :]], axis=-2)


def rounded(points: int, width: float) -> np.ndarray:
    """Return the pen widths `[points]` of a stroke with two round ends."""
    return width * np.sin(np.linspace(0.12, np.pi - 0.12, points)) ** 0.4
