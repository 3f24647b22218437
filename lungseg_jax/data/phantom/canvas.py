"""A CT image to paint on, and the shapes to paint.

Patient coordinates: x towards the right of the picture (the patient's left), y towards
the back, one unit = half the width of the thoracic cavity. Lines and outlines are float
arrays [points 2].
"""

import copy

import cv2
import numpy as np

_SUBPIXEL_BITS = 4


class Canvas:
    """An image, float32 [size size] in HU, and the frame that places the patient.

    `frame`, float64 [2 3], takes patient coordinates to shares of the image's width.
    """

    def __init__(self, size: int, frame: np.ndarray, background_hu: float):
        self.size = size
        self.image = np.full((size, size), background_hu, np.float32)
        self._matrix = frame[:, :2] * size
        # OpenCV puts a pixel's centre, not its corner, at whole coordinates.
        self._origin = frame[:, 2] * size - 0.5
        self.unit_px = float(np.sqrt(abs(np.linalg.det(self._matrix))))

    def overlay(self, image: np.ndarray) -> "Canvas":
        """Another image, float32 [size size], to paint on in the same frame."""
        other = copy.copy(self)
        other.image = image
        return other

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        return points @ self._matrix.T + self._origin

    def coarse_grid(self, cells: int) -> np.ndarray:
        """Patient coordinates of points all over the image: [cells cells 2]."""
        axis = (np.arange(cells) + 0.5) * self.size / cells - 0.5
        pixels = np.stack(np.meshgrid(axis, axis), axis=-1)
        return (pixels - self._origin) @ np.linalg.inv(self._matrix).T

    def paint(
        self,
        outline: np.ndarray,
        hu: float,
        alpha: float = 1.0,
        *,
        within: np.ndarray | None = None,
    ) -> None:
        """Fill an outline; `within` is a coverage, uint8 [size size], not to leave."""
        self.paint_pixels(self.to_pixels(outline), hu, alpha, within=within)

    def paint_pixels(
        self,
        outline: np.ndarray,
        hu: float,
        alpha: float = 1.0,
        *,
        within: np.ndarray | None = None,
    ) -> None:
        """As `paint`, for an outline in pixels."""
        left, top = np.clip(np.floor(outline.min(0)).astype(int) - 2, 0, self.size)
        right, bottom = np.clip(np.ceil(outline.max(0)).astype(int) + 3, 0, self.size)
        if left >= right or top >= bottom:
            return
        box = np.s_[top:bottom, left:right]
        cover = np.zeros((bottom - top, right - left), np.uint8)
        fill(cover, outline - [left, top])
        if within is not None:
            cover = cv2.min(cover, within[box])
        window = self.image[box]
        window += (hu - window) * (cover * np.float32(alpha / 255))

    def cover(self, *outlines: np.ndarray) -> np.ndarray:
        """The union of the outlines as anti-aliased coverage, uint8 [size size]."""
        layer = np.zeros((self.size, self.size), np.uint8)
        for outline in outlines:
            fill(layer, self.to_pixels(outline))
        return layer


def fill(layer: np.ndarray, outline: np.ndarray, value: float = 255) -> None:
    """Fill an outline in pixels on a uint8 layer, the only kind OpenCV anti-aliases."""
    fixed = np.rint(outline * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(layer, [fixed], value, cv2.LINE_AA, _SUBPIXEL_BITS)


def closed_curve(points: np.ndarray, steps: int = 8) -> np.ndarray:
    """The closed Catmull-Rom curve through the points: [points*steps 2]."""
    t = (np.arange(steps) / steps)[None, :, None]
    padded = np.concatenate([points[-1:], points, points[:2]])[:, None]
    p0, p1, p2, p3 = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    slope, bend, twist = p2 - p0, 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * (p1 - p2) + p3 - p0
    return (p1 + 0.5 * t * (slope + t * (bend + t * twist))).reshape(-1, 2)


def bezier(controls: np.ndarray, points: int = 12) -> np.ndarray:
    """The Bezier curve from the first to the last control point: [points 2]."""
    t = np.linspace(0, 1, points)[:, None, None]
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
    """An ellipse, turned by `tilt` radians, whose radius wobbles by that share."""
    theta = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    order = np.arange(2, 6)[:, None]
    waves = np.cos(order * theta + rng.uniform(0, 2 * np.pi, (4, 1)))
    radius = 1 + wobble * (rng.normal(size=4) / order[:, 0]) @ waves
    points = np.stack([np.cos(theta), np.sin(theta)], axis=1) * radius[:, None] * radii
    cos, sin = np.cos(tilt), np.sin(tilt)
    return points @ np.array([[cos, sin], [-sin, cos]]) + center


def stroke(line: np.ndarray, widths: np.ndarray | float) -> np.ndarray:
    """The outline of a line drawn with a pen of the given width(s).

    Takes lines [... points 2] with widths [... points] to outlines [... 2*points 2].
    """
    along = np.empty_like(line)
    along[..., 1:-1, :] = line[..., 2:, :] - line[..., :-2, :]
    along[..., 0, :] = line[..., 1, :] - line[..., 0, :]
    along[..., -1, :] = line[..., -1, :] - line[..., -2, :]
    along /= np.sqrt((along**2).sum(-1, keepdims=True)) + 1e-9
    half = along[..., ::-1] * [-0.5, 0.5] * np.asarray(widths)[..., None]
    return np.concatenate([line + half, (line - half)[..., ::-1, :]], axis=-2)


def rounded(points: int, width: float) -> np.ndarray:
    """Pen widths for a stroke of so many points whose two ends are round."""
    return width * np.sin(np.linspace(0.12, np.pi - 0.12, points)) ** 0.4
