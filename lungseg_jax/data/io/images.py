"""Image files to arrays with their true values.

OpenCV returns a damaged file as None, and in any mode but UNCHANGED it rewrites 16-bit
pixels in silence; here every such case is a UserError that names the file. What a file
says of its size is read first, so that none can ask for more memory than `MOST_PIXELS`.
"""

import stat
from pathlib import Path

import cv2
import numpy as np

from lungseg_jax.data.io.image_headers import MOST_PAGES, Header, read_header
from lungseg_jax.runtime.errors import UserError

SUFFIXES = (".tif", ".tiff", ".png")
DTYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")
MOST_PIXELS = 2**26  # 8192 x 8192; a CT slice has 2**18
MOST_BYTES = 8 * MOST_PIXELS + 2**20  # of a file: as many float64, and a header
_BITS = (1, 2, 4, 8, 16, 32, 64)  # OpenCV multiplies 12-bit values by 16

cv2.utils.logging.setLogLevel(0)  # its warnings repeat, without the path, what we raise


def read_image(path: Path) -> np.ndarray:
    """One gray slice `[h w]` of one of `DTYPES`.

    Raises:
      UserError: not a readable TIFF or PNG, cut short, too large, colour, several
        pages, not finite, or of another type.
    """
    image = _gray(path)
    if image.dtype.name not in DTYPES:
        raise UserError(
            f"{path} holds {image.dtype} pixels.",
            rule=f"images are {', '.join(DTYPES)}.",
            remedy="save the file as one of these; CT values fit int16.",
        )
    return image


def read_mask(path: Path) -> np.ndarray:
    """A mask `[h w]`, uint8 in {0, 1}, from a file with {0, 1} or {0, 255}.

    Raises:
      UserError: as `read_image`, or the file has other values.
    """
    return binary(_gray(path), str(path))


def binary(mask: np.ndarray, where: str) -> np.ndarray:
    """A mask `[h w]` of {0, 1} or {0, 255} as uint8 in {0, 1}.

    Raises:
      UserError: it has other values; `where` names it.
    """
    high = mask.max()
    if high not in (0, 1, 255) or not np.all((mask == 0) | (mask == high)):
        values = np.unique(mask)
        shown = ", ".join(str(v) for v in values[:6].tolist())
        more = ", ..." if len(values) > 6 else ""
        raise UserError(
            f"{where} has the values {shown}{more}.",
            rule="a mask has two values: {0, 255} or {0, 1}.",
            remedy="binarise it; several labels in one file are not supported.",
        )
    return (mask > 0).astype(np.uint8)


def _gray(path: Path) -> np.ndarray:
    """The pixels of a file, any dtype."""
    content = _content(path)
    damaged = UserError(
        f"{path} is damaged or cut short ({len(content)} bytes).",
        rule="a complete TIFF or PNG file.",
        remedy="copy the file again from its source.",
    )
    try:
        header = read_header(content)
        _check_header(path, header)
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except (ValueError, cv2.error) as e:
        raise damaged from e
    # A tag may ask for the picture on its side.
    sizes = (header.height, header.width), (header.width, header.height)
    if image is None or image.shape not in sizes:
        raise damaged
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(
            f"{path} has NaN or infinite pixels.",
            rule="finite values.",
            remedy="give these pixels the value of air, -1000 HU.",
        )
    return image


def _content(path: Path) -> bytes:
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path} is not an image file that is known here.",
            rule=f"one of {', '.join(SUFFIXES)}.",
        )
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # to read a pipe is to wait for ever
            raise UserError(
                f"{path} cannot be read: it is not a file.",
                rule="an image is an ordinary file.",
                remedy="move it out of the folder.",
            )
        if status.st_size > MOST_BYTES:
            raise UserError(
                f"{path} has {status.st_size} bytes.",
                rule=f"at most {MOST_BYTES}: one slice of {MOST_PIXELS} pixels.",
                remedy="save each slice as a file of its own.",
            )
        return path.read_bytes()
    except OSError as e:
        raise UserError(
            f"{path} cannot be read: {e.strerror}.",
            rule="every file can be read.",
            remedy="check that it is there, and its permissions.",
        ) from e


def _check_header(path: Path, header: Header) -> None:
    if header.pages > 1:
        many = f"{MOST_PAGES} or more" if header.pages >= MOST_PAGES else header.pages
        raise UserError(
            f"{path} has {many} pages.",
            rule="one slice in a file.",
            remedy="save each page as a file of its own.",
        )
    if header.pixels > MOST_PIXELS:
        in_blocks = header.pixels > header.width * header.height
        width, height = header.block if in_blocks else (header.width, header.height)
        raise UserError(
            f"{path} has {'blocks of ' if in_blocks else ''}{width} x {height} pixels.",
            rule=f"at most {MOST_PIXELS} pixels, as 8192 x 8192.",
            remedy="cut it into slices or scale it down; if the size is not true, the "
            "file is damaged.",
        )
    if header.channels > 1:
        raise UserError(
            f"{path} has {header.channels} channels.",
            rule="images and masks are gray: one channel.",
            remedy="save the file as gray.",
        )
    if header.bits not in _BITS:
        raise UserError(
            f"{path} has {header.bits} bits in a pixel.",
            rule="8, 16, 32 or 64 bits, or 1 of a mask.",
            remedy="save the file with 16 bits.",
        )
