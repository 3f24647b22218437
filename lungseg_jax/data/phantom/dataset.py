"""Synthetic CT slices with exact lung masks: a dataset that needs no download.

A slice shows one level of a patient, from neck to pelvis. It is painted from back to
front: couch, body wall, the organs around the lungs, and then the lungs, which fill the
rest of the thoracic cavity. So image and mask agree to the pixel. Shapes are drawn in
patient coordinates, so a slice shows the same patient at every size.

What varies, and how often, is in tables next to the code that draws it:

| what | where |
|---|---|
| level, field of view, thickness | `placement.LEVELS`, `FIELDS`, `THICKNESS_MM` |
| density and inflation of the lung, age, fat, arms, contrast medium | `patient` |
| disease of the lung, which is lung | `pathology.CHANCES` |
| effusion, pneumothorax and collapse | `pleura.CHANCES` |
| raised diaphragm, bowel gas, hernia | `diaphragm`, `abdomen`, `mediastinum` |
| implants, tubes and wires | `devices.CHANCES` |
| matrix, kernel, dose, calibration, streaks, padding, couch | `scanner` |

The mask is that of the lung with its pleura, its vessels and whatever disease fills it,
however dense. Vessels and nodes at the hila are lung if they are narrower than 12 mm.
Large airways, effusion, the air of a pneumothorax, the mediastinum, bowel gas and hernias
are not lung.
"""

import numbers
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import cv2
import numpy as np

from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.phantom import (
    cavity,
    chest_wall,
    devices,
    lung,
    neck,
    placement,
    pleura,
    scanner,
)
from lungseg_jax.data.phantom.canvas import Canvas
from lungseg_jax.data.phantom.patient import Section, draw_patient
from lungseg_jax.runtime.errors import UserError

VERSION = 6  # increase it when the pixels change: cached phantoms are keyed by it

PLEURA = 0.002  # 0.3 mm


def make_phantom(
    *, seed: int, index: int, size: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Draw an axial slice of a synthetic patient and its lung mask.

    The same arguments always give the same slice.

    Args:
      seed: of all phantoms of a dataset.
      index: which of them; each is of another patient.
      size: height and width in pixels.

    Returns:
      The image, int16 `[size size]` in Hounsfield units, and the mask, uint8 `[size size]`
      in {0, 255}. About one mask in five is empty, and some touch the border.

    Raises:
      UserError: the seed or the index is not a whole number from 0, or the size is not
        one from 64, the smallest that shows the organs.
    """
    for name, value, least in (
        ("seed", seed, 0),
        ("index", index, 0),
        ("size", size, 64),
    ):
        if not isinstance(value, numbers.Integral) or value < least:
            raise UserError(f"{name}={value!r}.", rule=f"a whole number from {least}.")
    rng, scanner_rng = np.random.default_rng([seed, index]).spawn(2)
    patient = pleura.displace(draw_patient((seed, index)))
    section = placement.draw_section(patient, index, rng)
    canvas = Canvas(size, placement.draw_frame(section, rng), scanner.AIR_HU)
    protocol = scanner.draw_protocol(scanner_rng)
    scanner.paint_couch(canvas, canvas.to_pixels(section.skin), scanner_rng)
    mask = paint_section(canvas, section)
    return scanner.acquire(canvas, mask, protocol, scanner_rng)


def paint_section(canvas: Canvas, section: Section) -> np.ndarray:
    """Paint a patient at one level; return the lung mask, uint8 `[size size]`."""
    chest_wall.paint(canvas, section)
    if section.level < cavity.APEX:
        neck.paint(canvas, section)
        mask = np.zeros((canvas.size, canvas.size), np.uint8)
    else:
        findings = pleura.draw(section.patient)
        mask = cavity.paint(canvas, section, findings)
        lung.paint(canvas, section, mask, findings)
        mask = _with_pleura(canvas, mask)
    devices.paint(canvas, section)
    return mask


def _with_pleura(canvas: Canvas, mask: np.ndarray) -> np.ndarray:
    """Return a mask with the pleura, as people and programs outline lungs.

    The outline moves by `PLEURA` half widths of the chest, to about -300 HU where the lung
    borders on soft tissue.
    """
    sigma = PLEURA / 0.2533  # where a blurred straight edge is 0.4
    blurred = cv2.GaussianBlur(mask, (0, 0), sigma * canvas.unit_px)
    return np.where(blurred > 0.4 * 255, 255, 0).astype(np.uint8)


def slice_name(seed: int, index: int) -> str:
    """Return the file name of a slice, in the pattern of the Kaggle set."""
    height = np.random.default_rng([seed, index]).integers(50, 330)
    return f"ID_{index:04d}_Z_{height:04d}.tif"


def write_phantoms(
    folder: Path,
    *,
    slices: int,
    seed: int,
    size: int = 512,
    progress: Callable[[], object] | None = None,
) -> None:
    """Write pairs to folder/2d_images/*.tif and folder/2d_masks/*.tif.

    Layout, names and file format are those of the Kaggle set. Existing files are kept,
    except those of the same names.

    Args:
      folder: created if it does not exist.
      slices: number of pairs.
      seed: of the phantoms.
      size: height and width in pixels.
      progress: called in the calling thread after each pair.

    Raises:
      ValueError: `slices` is below 1.
      UserError: as `make_phantom`; or a file cannot be written, and the remaining slices
        are not drawn.
    """
    if slices < 1:
        raise ValueError(f"slices={slices} must be at least 1; try 100.")
    images, masks = Path(folder) / "2d_images", Path(folder) / "2d_masks"
    for subfolder in (images, masks):
        subfolder.mkdir(parents=True, exist_ok=True)

    def write_pair(index: int) -> None:
        image, mask = make_phantom(seed=seed, index=index, size=size)
        name = slice_name(seed, index)
        write_image(images / name, image)
        write_image(masks / name, mask)

    # Threads suffice, as OpenCV and NumPy release the interpreter lock.
    with ThreadPoolExecutor() as pool:
        pairs = [pool.submit(write_pair, index) for index in range(slices)]
        try:
            for pair in as_completed(pairs):
                pair.result()
                if progress is not None:
                    progress()
        except BaseException:
            # A full disk (or Ctrl-C) ends the run now, not after the remaining slices.
            pool.shutdown(cancel_futures=True)
            raise
