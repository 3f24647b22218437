"""Image files to arrays with their true values.

OpenCV returns a damaged file as None, and in any mode but UNCHANGED it rewrites 16-bit
pixels in silence; here every such case is a UserError that names the file.
"""

from pathlib import Path

import cv2
import numpy as np

from lungseg_jax.errors import UserError

SUFFIXES = (".tif", ".tiff", ".png")

cv2.utils.logging.setLogLevel(0)  # its warnings repeat, without the path, what we raise


def read_image(path: Path) -> np.ndarray:
    """One gray slice `[h w]`: uint8, int16, uint16, int32, float32 or float64.

    Raises:
      UserError: not a readable TIFF or PNG, cut short, colour, several pages, or
        not finite.
    """
    image = _decode(path)
    if image.ndim == 3:
        raise UserError(
            f"{path} has {image.shape[2]} channels.",
            rule="images and masks are gray: one channel.",
            remedy="save the file as gray.",
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{path} has NaN or infinite pixels.", rule="finite values.")
    return image


def read_mask(path: Path) -> np.ndarray:
    """A mask `[h w]`, uint8 in {0, 1}, from a file with {0, 1} or {0, 255}.

    Raises:
      UserError: as `read_image`, or the file has other values.
    """
    mask = read_image(path)
    high = mask.max()
    if high not in (0, 1, 255) or not np.all((mask == 0) | (mask == high)):
        values = np.unique(mask)
        shown = ", ".join(str(v) for v in values[:6].tolist())
        more = ", ..." if len(values) > 6 else ""
        raise UserError(
            f"{path} has the values {shown}{more}.",
            rule="a mask has two values: {0, 255} or {0, 1}.",
            remedy="binarise it; several labels in one file are not supported.",
        )
    return (mask > 0).astype(np.uint8)


def _decode(path: Path) -> np.ndarray:
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path} is not an image file that is known here.",
            rule=f"one of {', '.join(SUFFIXES)}.",
        )
    try:
        content = path.read_bytes()
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}.") from e
    damaged = UserError(
        f"{path} is damaged or cut short ({len(content)} bytes).",
        rule="a complete TIFF or PNG file.",
        remedy="copy the file again from its source.",
    )
    # Some builds of libpng return a truncated picture as if it were whole.
    if content.startswith(b"\x89PNG") and b"IEND" not in content[-12:]:
        raise damaged
    try:
        pages = cv2.imdecodemulti(
            np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED
        )[1]
    except cv2.error as e:
        raise damaged from e
    if not pages or pages[0] is None:
        raise damaged
    if len(pages) > 1:
        raise UserError(
            f"{path} has {len(pages)} pages.",
            rule="one slice in a file.",
            remedy="save each page as a file of its own.",
        )
    return pages[0]
