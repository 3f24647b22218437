"""Synthetic chest CT slices with exact lung masks: the data set that needs no download.

A slice is painted back to front: couch, chest wall, what lies between the lungs, then
the lungs, which fill what remains of the thoracic cavity; so image and mask agree to
the pixel. Shapes are drawn in the patient's own coordinates, whatever the size: a small
slice shows the same patient. The parts are in lungseg_jax/data/synthetic.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.phantom import cavity, chest_wall, lung, scanner
from lungseg_jax.data.phantom.canvas import Canvas
from lungseg_jax.data.phantom.patient import draw_frame, draw_patient

VERSION = 1  # raise it when other pixels are drawn: prepared phantoms are kept by it


def make_slice(
    *, seed: int, index: int, size: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """One axial slice and its lung mask, a pure function of the arguments.

    Returns:
        The image, int16 [size size] in Hounsfield units, and the mask, uint8
        [size size] in {0, 255}: lungs with their vessels, without the large airways,
        never touching the border.

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
    """The file name of a slice, in the pattern of the Kaggle set."""
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
    """Write `slices` pairs as folder/2d_images/*.tif and folder/2d_masks/*.tif.

    Layout, names and file format are the Kaggle set's. Files already there stay,
    unless of the same name. `progress` is called in the calling thread after each pair.

    Raises:
        ValueError: `slices` is below 1 or `size` below 64.
        OSError: a file could not be written; the remaining slices are left out.
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

    # Threads suffice: OpenCV and NumPy let go of the interpreter lock.
    with ThreadPoolExecutor() as pool:
        pairs = [pool.submit(write_pair, index) for index in range(slices)]
        try:
            for pair in as_completed(pairs):
                pair.result()
                if progress is not None:
                    progress()
        except BaseException:
            # A full disk (or Ctrl-C) ends the run now, not after the other slices.
            pool.shutdown(cancel_futures=True)
            raise
