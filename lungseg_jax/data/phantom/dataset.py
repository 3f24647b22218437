"""Synthetic chest CT slices with exact lung masks: a dataset that needs no download.

A slice is painted from back to front: couch, chest wall, the organs between the lungs, and
then the lungs, which fill the rest of the thoracic cavity. So image and mask agree to the
pixel. Shapes are drawn in patient coordinates, so a slice shows the same patient at every
size.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.phantom import cavity, chest_wall, lung, scanner
from lungseg_jax.data.phantom.canvas import Canvas
from lungseg_jax.data.phantom.patient import draw_frame, draw_patient

VERSION = 1  # increase it when the pixels change: cached phantoms are keyed by it


def make_slice(
    *, seed: int, index: int, size: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Draw an axial slice and its lung mask, as a pure function of the arguments.

    Returns:
      The image, int16 `[size size]` in Hounsfield units, and the mask, uint8 `[size size]`
      in {0, 255}. Lungs include their vessels but not the large airways, and never touch
      the border.

    Raises:
      ValueError: the size is below 64, too small to show the organs.
    """
    if size < 64:
        raise ValueError(f"size={size} must be at least 64; try 128.")
    rng, scanner_rng = np.random.default_rng([seed, index]).spawn(2)
    patient = draw_patient(rng)
    canvas = Canvas(size, draw_frame(patient, rng), scanner.AIR_HU)
    scanner.paint_couch(canvas, canvas.to_pixels(patient.skin), scanner_rng)
    chest_wall.paint(canvas, patient, rng)
    mask = cavity.paint(canvas, patient, rng)
    lung.paint(canvas, patient, mask, rng)
    return scanner.acquire(canvas, scanner_rng), mask


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
      ValueError: `slices` is below 1 or `size` below 64.
      UserError: a file cannot be written; the remaining slices are not drawn.
    """
    if slices < 1:
        raise ValueError(f"slices={slices} must be at least 1; try 100.")
    images, masks = Path(folder) / "2d_images", Path(folder) / "2d_masks"
    for subfolder in (images, masks):
        subfolder.mkdir(parents=True, exist_ok=True)

    def write_pair(index: int) -> None:
        image, mask = make_slice(seed=seed, index=index, size=size)
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
