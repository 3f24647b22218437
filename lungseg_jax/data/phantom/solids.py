"""Bodies in three dimensions, of which a slice shows a section."""

from dataclasses import dataclass

import numpy as np

from lungseg_jax.data.phantom.canvas import blob
from lungseg_jax.data.phantom.patient import Rng, Section

_CIRCLE = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_CIRCLE), np.sin(_CIRCLE)], axis=1)


@dataclass(frozen=True)
class Tube:
    """A chain of balls along a line: a vessel, an airway, a loop of bowel.

    Attributes:
      points: centers `[n 3]`: x, y, z, in half widths.
      radii: `[n]`, in half widths.
    """

    points: np.ndarray
    radii: np.ndarray

    def part(self, chosen: np.ndarray) -> "Tube":
        """Return the tube of the `chosen` balls, bool `[n]`."""
        return Tube(self.points[chosen], self.radii[chosen])

    def shown(self, z: float) -> np.ndarray:
        """Return the numbers of the balls that height `z` cuts."""
        return np.flatnonzero(np.abs(self.points[:, 2] - z) < 0.985 * self.radii)

    def section(self, z: float, wall: float = 0.0) -> list[np.ndarray]:
        """Return discs, outlines `[28 2]`, whose union is the section at height `z`.

        Args:
          z: in half widths.
          wall: added to the radius of the discs.
        """
        shown = self.shown(z)
        radii = (
            np.sqrt(self.radii[shown] ** 2 - (self.points[shown, 2] - z) ** 2) + wall
        )
        return list(self.points[shown, None, :2] + radii[:, None, None] * _CIRCLE)


def make_tube(
    controls: np.ndarray, radii: np.ndarray | float, height: float, bulge: float = 0.0
) -> Tube:
    """Return a tube that follows control points.

    Args:
      controls: `[k 3]`: x, y and level.
      radii: at the control points, `[k]` or one for all.
      height: of the lungs, in half widths.
      bulge: share by which the radius varies along a bowel.
    """
    controls = np.array(controls, float) * [1, 1, height]
    radii = np.broadcast_to(np.asarray(radii, float), (len(controls),))
    steps = np.linalg.norm(np.diff(controls, axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(steps)])
    count = int(np.clip(at[-1] / (0.35 * radii.min()), 4, 160))
    fine = np.linspace(0, at[-1], count)
    values = np.column_stack([controls, radii])
    values = np.stack([np.interp(fine, at, column) for column in values.T], axis=1)
    reach = max(count // 14, 1)  # rounds the corners at the control points
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    kernel = np.ones(2 * reach + 1) / (2 * reach + 1)
    values = np.stack([np.convolve(c, kernel, "valid") for c in padded.T], axis=1)
    swell = 1 + bulge * np.sin(fine / (radii.mean() + 1e-9) * 2.2)
    return Tube(values[:, :3], values[:, 3] * swell)


def egg(
    section: Section,
    rng: Rng,
    center: tuple[float, float, float],
    radii: tuple[float, float, float],
    *,
    tilt: float = 0.0,
    wobble: float = 0.05,
) -> np.ndarray | None:
    """Return the section of an uneven ellipsoid, `[48 2]`, or None where it misses.

    Args:
      section: where to cut it.
      rng: draws the same numbers whether it is cut or not.
      center: x, y and level.
      radii: along x and y in half widths, and along z in levels.
      tilt: in the plane of the slice, in radians.
      wobble: as of `blob`.
    """
    outline = blob(rng, (0, 0), radii[:2], tilt=tilt, wobble=wobble)
    share = 1 - ((section.level - center[2]) / radii[2]) ** 2
    if share <= 0.01:
        return None
    return outline * np.sqrt(share) + center[:2]
