"""Contact sheets to look at before a training, and while it runs."""

from pathlib import Path

import numpy as np

from lungseg_jax.data.io.images import write_picture
from lungseg_jax.inference.contact_sheet import TILE, ContactSheet
from lungseg_jax.inference.overlay import (
    draw_outline,
    error_overlay,
    gray_bgr,
    resize_to_fit,
)


def write_preview(
    path: Path, images: np.ndarray, masks: np.ndarray, *, columns: int
) -> None:
    """Write slices with the outline of their masks as a PNG.

    Args:
      path: the PNG; replaced if it exists.
      images: `[n s s]`, in [0, 1].
      masks: `[n s s]`, in [0, 1]; the outline is that of 0.5.
      columns: pictures in a row; it divides n.

    Raises:
      UserError: the file cannot be written.
    """
    tiles = []
    for image, mask in zip(images, masks, strict=True):
        picture = resize_to_fit(gray_bgr(image, window_hu=(0.0, 1.0)), TILE)
        lung = resize_to_fit(mask, TILE) > 0.5
        tiles.append(draw_outline(picture, lung))
    rows = [
        np.concatenate(tiles[i : i + columns], axis=1)
        for i in range(0, len(tiles), columns)
    ]
    write_picture(path, np.concatenate(rows, axis=0))


def draw_sheet(images: np.ndarray, masks: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Draw slices with the outline of their masks, and errors as `error_overlay` does.

    Args:
      images: `[n s s]`, in [0, 1].
      masks, truths: `[n s s]`, boolean.

    Returns:
      A picture `[h w 3]`, uint8 RGB.
    """
    sheet = ContactSheet(len(images))
    for k, image in enumerate(images):
        mask, truth = (
            resize_to_fit(m[k].astype(np.uint8), TILE) > 0 for m in (masks, truths)
        )
        small = resize_to_fit(image, TILE)
        picture = error_overlay(small, mask, truth, window_hu=(0.0, 1.0))
        sheet.add(picture, f"{k}")
    return sheet.picture()[..., ::-1]
