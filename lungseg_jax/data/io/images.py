"""TIFF and PNG files, read and written without changing a pixel.

OpenCV returns a damaged file as None, rewrites 16-bit pixels in every mode but UNCHANGED,
and writes any dtype to PNG as uint8, all silently. Here each of these is an error that
names the file. A file's header is read before its pixels are decoded, so no file can make
a decoder allocate more than `MAX_PIXELS`.
"""

import stat
from pathlib import Path

import cv2
import numpy as np

from lungseg_jax.data.intensity import require_finite
from lungseg_jax.data.io.image_headers import MAX_PAGES, Header, read_header
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import atomic_write

DTYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")
MAX_PIXELS = 2**26  # 8192 x 8192; a CT slice has 2**18
MAX_FILE_BYTES = 8 * MAX_PIXELS + 2**20  # that many float64 pixels, and a header
_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)  # of TIFF, that OpenCV reads
_BITS = (1, 8, 16, 32, 64)  # OpenCV multiplies values of 2, 4 and 12 bits

# The dtypes that OpenCV writes to a file with this suffix.
_TIFF_DTYPES = ("uint8", "int16", "uint16", "float32")
_WRITABLE = {
    ".tif": _TIFF_DTYPES,
    ".tiff": _TIFF_DTYPES,
    ".png": ("uint8", "uint16"),
}
_TIFF_UNCOMPRESSED = 1
_PICTURE_OPTIONS = [cv2.IMWRITE_PNG_COMPRESSION, 3]  # half the size of the default, 1

cv2.utils.logging.setLogLevel(0)  # our errors say the same, and name the file


def read_image(path: Path) -> np.ndarray:
    """Return the gray slice `[h w]` in a TIFF or PNG file, in one of `DTYPES`.

    Raises:
      UserError: the file is not a readable TIFF or PNG, is truncated or too large, has
        color or several pages, or its pixels are not finite or of another dtype.
    """
    image = _read_pixels(path)
    if image.dtype.name not in DTYPES:
        raise UserError(
            f"{path} holds {image.dtype} pixels.",
            rule=f"images are {', '.join(DTYPES)}.",
            remedy="save the file as one of these; CT values fit int16.",
        )
    return image


def read_mask(path: Path) -> np.ndarray:
    """Return the mask `[h w]` in a file of {0, 1} or {0, 255}, as uint8 in {0, 1}.

    Unlike an image, a mask may be of any dtype.

    Raises:
      UserError: as `read_image`, or the file has other values.
    """
    return as_mask(_read_pixels(path), str(path))


def as_mask(array: np.ndarray, where: str) -> np.ndarray:
    """Convert `[h w]` of {0, 1} or {0, 255} to uint8 in {0, 1}.

    Raises:
      UserError: the array has other values; `where` names it.
    """
    high = array.max()
    if high not in (0, 1, 255) or not np.all((array == 0) | (array == high)):
        values = np.unique(array)
        shown = ", ".join(str(v) for v in values[:6].tolist())
        more = ", ..." if len(values) > 6 else ""
        raise UserError(
            f"{where} has the values {shown}{more}.",
            rule="a mask has two values: {0, 255} or {0, 1}.",
            remedy="binarize it; files with several labels are not supported.",
        )
    return (array > 0).astype(np.uint8)


def write_image(path: Path, array: np.ndarray) -> None:
    """Write a gray image `[h w]` to a TIFF or PNG file, chosen by the suffix.

    A TIFF is uncompressed, little-endian and has one strip, like those of the Kaggle set.
    The file appears under its name only when complete, and replaces an existing one.

    Raises:
      ValueError: the suffix is unknown, the format cannot hold the dtype, or the array
        is not a non-empty `[h w]`.
      UserError: the file cannot be written; nothing is left behind.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    _check_writable(path, suffix, array)
    _write(path, np.ascontiguousarray(array), _encoder_options(suffix, array))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a PNG for people to look at, atomically; it replaces an existing file.

    Args:
      path: ends in .png.
      picture: uint8, `[h w]`, or `[h w 3]` in the order blue, green, red.

    Raises:
      UserError: the file cannot be written; nothing is left behind.
    """
    _write(path, np.ascontiguousarray(picture), _PICTURE_OPTIONS)


def _read_pixels(path: Path) -> np.ndarray:
    """Return the pixels `[h w]` of a file, in the dtype that it stores."""
    content = _read_content(path)
    damaged = UserError(
        f"{path} is damaged or truncated ({len(content)} bytes).",
        rule="a complete TIFF or PNG file.",
        remedy="copy the file again from its source.",
    )
    try:
        header = read_header(content)
        _check_header(path, header)
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except (ValueError, cv2.error) as e:
        raise damaged from e
    if image is None and header.compression not in _COMPRESSIONS:
        raise UserError(
            f"{path} has a compression that is not supported ({header.compression}).",
            rule="TIFF without compression, or with LZW, Deflate, PackBits or JPEG.",
            remedy="save it again as one of these, or as PNG.",
        )
    # A TIFF tag may ask for rotation by 90 degrees.
    shapes = (header.height, header.width), (header.width, header.height)
    if image is None or image.shape not in shapes:
        raise damaged
    require_finite(image, str(path))
    return image


def _read_content(path: Path) -> bytes:
    if path.suffix.lower() not in _WRITABLE:
        raise UserError(
            f"{path} is not a known image format.",
            rule=f"one of {', '.join(_WRITABLE)}.",
        )
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block for ever
            raise UserError(
                f"{path} cannot be read: it is not a regular file.",
                rule="an image is a regular file.",
                remedy="move it out of the folder.",
            )
        if status.st_size > MAX_FILE_BYTES:
            raise UserError(
                f"{path} has {status.st_size} bytes.",
                rule=f"at most {MAX_FILE_BYTES}: one slice of {MAX_PIXELS} pixels.",
                remedy="save each slice as a separate file.",
            )
        return path.read_bytes()
    except OSError as e:
        raise UserError(
            f"{path} cannot be read: {e.strerror}.",
            rule="every file is readable.",
            remedy="check that it exists, and its permissions.",
        ) from e


def _check_header(path: Path, header: Header) -> None:
    if header.pages > 1:
        pages = f"{MAX_PAGES} or more" if header.pages >= MAX_PAGES else header.pages
        raise UserError(
            f"{path} has {pages} pages.",
            rule="one slice per file.",
            remedy="save each page as a separate file.",
        )
    if header.pixels > MAX_PIXELS:
        has_large_blocks = header.pixels > header.width * header.height
        width, height = (
            header.block if has_large_blocks else (header.width, header.height)
        )
        blocks = "blocks of " if has_large_blocks else ""
        raise UserError(
            f"{path} has {blocks}{width} x {height} pixels.",
            rule=f"at most {MAX_PIXELS} pixels, as in 8192 x 8192.",
            remedy="split it into slices or scale it down; if it is not really that "
            "large, the file is damaged.",
        )
    if header.channels > 1:
        color = "a palette" if header.has_palette else f"{header.channels} channels"
        raise UserError(
            f"{path} has {color}.",
            rule="images and masks are gray: one channel, without a palette.",
            remedy="save the file as gray.",
        )
    if header.bits not in _BITS:
        raise UserError(
            f"{path} has {header.bits} bits per pixel.",
            rule="8, 16, 32 or 64 bits, or 1 for a mask.",
            remedy="save the file with 16 bits.",
        )
    if header.white_is_zero:  # OpenCV inverts 8 bits, but not 16
        raise UserError(
            f"{path} is WhiteIsZero: its values are inverted.",
            rule="higher values are brighter: PhotometricInterpretation is BlackIsZero.",
            remedy="save the file again as BlackIsZero, for example as PNG.",
        )


def _check_writable(path: Path, suffix: str, array: np.ndarray) -> None:
    if suffix not in _WRITABLE:
        raise ValueError(
            f"{path}: suffix {suffix!r} must be one of {', '.join(_WRITABLE)}."
        )
    # A dtype of foreign byte order has another name, such as '>i2', and is refused.
    if str(array.dtype) not in _WRITABLE[suffix]:
        raise ValueError(
            f"{path}: dtype {array.dtype} cannot be stored as {suffix}; "
            f"allowed: {', '.join(_WRITABLE[suffix])}."
        )
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"{path}: shape {array.shape} must be a non-empty [height width]."
        )


def _encoder_options(suffix: str, array: np.ndarray) -> list[int]:
    if suffix == ".png":
        return []
    height = array.shape[0]
    return [
        cv2.IMWRITE_TIFF_COMPRESSION,
        _TIFF_UNCOMPRESSED,
        cv2.IMWRITE_TIFF_ROWSPERSTRIP,
        height,
    ]


def _write(path: Path, array: np.ndarray, options: list[int]) -> None:
    with atomic_write(path) as temporary:
        try:
            # Not imwrite, which crashes on a name that is not UTF-8.
            is_encoded, content = cv2.imencode(path.suffix.lower(), array, options)
        except cv2.error as e:
            raise OSError(f"OpenCV could not encode it: {e}") from e
        if not is_encoded:
            raise OSError("OpenCV could not encode it")
        temporary.write_bytes(content)
