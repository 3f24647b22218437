"""A whole patient as a volume, from neck to abdomen."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from lungseg_jax.data.phantom import placement, pleura, scanner
from lungseg_jax.data.phantom.canvas import Canvas
from lungseg_jax.data.phantom.dataset import paint_section
from lungseg_jax.data.phantom.patient import (
    BOTTOM_LEVEL,
    TOP_LEVEL,
    Patient,
    draw_patient,
)
from lungseg_jax.data.phantom.scanner import Protocol
from lungseg_jax.runtime.errors import UserError, pluralize

NECK_LEVEL, ABDOMEN_LEVEL = -0.3, 1.5  # what a scan of the chest shows, generously


@dataclass(frozen=True)
class Scan:
    """A patient and how to scan it.

    Attributes:
      levels: of the slices, from feet to head.
      size: height and width of a slice in pixels.
      frame: affine map from patient coordinates to fractions of the image.
      spacing_mm: distance between slices, rows and columns.
    """

    patient: Patient
    protocol: Protocol
    levels: np.ndarray
    size: int
    frame: np.ndarray
    spacing_mm: tuple[float, float, float]

    def slices(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Draw slices and masks from feet to head, as `make_volume` returns them."""
        workers = os.cpu_count() or 1
        left, pending = iter(range(len(self.levels))), deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                while True:
                    # All at once, they would fill memory if the caller is slower.
                    more = islice(left, 2 * workers - len(pending))
                    pending.extend(pool.submit(self.draw, k) for k in more)
                    if not pending:
                        return
                    yield pending.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def draw(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw slice `k`, as `slices` does: rows go from front to back."""
        thickness = self.spacing_mm[0] / self.patient.half_width_mm
        section = self.patient.at(float(self.levels[k]), thickness)
        canvas = Canvas(self.size, self.frame, scanner.AIR_HU)
        # The same couch at all levels, below the chest.
        chest = canvas.to_pixels(self.patient.at(0.5).skin)
        scanner.paint_couch(canvas, chest, self.patient.stream("couch"))
        mask = paint_section(canvas, section)
        rng = self.patient.stream("noise", k)
        image, mask = scanner.acquire(canvas, mask, self.protocol, rng)
        down = self.patient.down  # who is prone was drawn with the back up
        return image[::down], mask[::down]


def plan_volume(
    *, seed: int, slices: int = 96, size: int = 256, spacing_mm: float = 0.0
) -> Scan:
    """Draw a patient and the settings of a scan, as a pure function of the arguments.

    Args:
      seed: of the patient; the other arguments only choose what is scanned.
      slices: number of slices.
      size: height and width in pixels.
      spacing_mm: distance between slices; 0.0: what takes them from neck to abdomen.
        Otherwise, their middle is in the lower half of the chest.

    Raises:
      UserError: `size` is below 64 or `slices` below 1, or the slices would extend beyond
        the body.
    """
    if size < 64 or slices < 1:
        raise UserError(
            f"size={size}, slices={slices}.", rule="at least 64 and 1, respectively."
        )
    patient = pleura.displace(draw_patient((seed, 0, 1)))
    rng = patient.stream("scan")
    span = ABDOMEN_LEVEL - NECK_LEVEL
    level_mm = patient.height * patient.half_width_mm
    if not spacing_mm:
        spacing_mm = span * level_mm / slices
    step, middle = spacing_mm / level_mm, (ABDOMEN_LEVEL + NECK_LEVEL) / 2
    middle = max(middle, TOP_LEVEL + step * slices / 2)
    levels = middle + step * (np.arange(slices)[::-1] - (slices - 1) / 2)
    if levels[0] > BOTTOM_LEVEL or not spacing_mm > 0:
        longest = int((BOTTOM_LEVEL - TOP_LEVEL) * level_mm)
        raise UserError(
            f"{pluralize(slices, 'slice')} at {spacing_mm:g} mm would not be within the "
            f"body, {longest} mm.",
            remedy="fewer slices, or a smaller spacing.",
        )
    width = np.ptp(patient.at(0.5).skin[:, 0])
    scale = rng.uniform(0.72, 0.95) / width
    turn = np.radians(np.clip(rng.normal(0, 2), -8, 8))
    center = 0.5 + rng.normal(0, 0.015, 2)
    pixel_mm = patient.half_width_mm / (scale * size)
    return Scan(
        patient=patient,
        protocol=scanner.draw_protocol(rng, may_be_coarse=False),
        levels=levels,
        size=size,
        frame=placement.make_frame(scale, turn, patient.down, center),
        spacing_mm=(float(spacing_mm), float(pixel_mm), float(pixel_mm)),
    )


def make_volume(
    seed: int, *, slices: int = 96, size: int = 256
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Draw a patient from neck to abdomen, as a pure function of the arguments.

    Args:
      seed, slices, size: see `plan_volume`.

    Returns:
      The image, int16 `[slices size size]` in Hounsfield units, from feet to head; the
      lung mask, uint8 of the same shape in {0, 255}; and the distance between slices, rows
      and columns in mm.

    Raises:
      UserError: as `plan_volume`.
    """
    scan = plan_volume(seed=seed, slices=slices, size=size)
    images, masks = zip(*scan.slices(), strict=True)
    return np.stack(images), np.stack(masks), scan.spacing_mm
