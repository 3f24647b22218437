"""Image files, written whole or not at all.

A CT slice needs int16 (and a probability float32), which OpenCV writes to TIFF only:
asked for PNG it silently writes uint8. So each format lists what it can hold.
"""

import os
import uuid
from pathlib import Path

import cv2
import numpy as np

_TIFF_DTYPES = ("uint8", "int16", "uint16", "float32")
_DTYPES = {
    ".tif": _TIFF_DTYPES,
    ".tiff": _TIFF_DTYPES,
    ".png": ("uint8", "uint16"),
}
_TIFF_UNCOMPRESSED = 1
# Half of the bytes that 1, the default, makes of colour.
_SMALL = [cv2.IMWRITE_PNG_COMPRESSION, 3]


def write_image(path: Path, array: np.ndarray) -> None:
    """Write a one-channel image [height width]; the suffix chooses the format.

    A TIFF is uncompressed, little-endian and one strip, as in the Kaggle set. The file
    appears under its name only when complete; a file of that name is replaced.

    Raises:
        ValueError: the suffix is unknown, cannot hold the dtype, or the array is not
            a non-empty [height width].
        OSError: the file could not be written; nothing is left behind.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    _check(path, suffix, array)
    _write(path, np.ascontiguousarray(array), _settings(suffix, array))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a PNG to look at, whole or not at all; a file of that name is replaced.

    Args:
        path: ends in .png.
        picture: uint8, [height width], or [height width 3] blue green red.

    Raises:
        OSError: the file could not be written; nothing is left behind.
    """
    _write(Path(path), np.ascontiguousarray(picture), _SMALL)


def _write(path: Path, array: np.ndarray, settings: list[int]) -> None:
    suffix = path.suffix.lower()
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{suffix}")
    try:
        # Not imwrite, which crashes on a name that is no UTF-8.
        done, content = cv2.imencode(suffix, array, settings)
        if not done:
            raise OSError(f"{path}: OpenCV could not encode it.")
        partial.write_bytes(content)
        os.replace(partial, path)
    except cv2.error as error:
        raise OSError(f"{path}: OpenCV could not encode it: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _check(path: Path, suffix: str, array: np.ndarray) -> None:
    if suffix not in _DTYPES:
        raise ValueError(
            f"{path}: suffix {suffix!r} must be one of {', '.join(_DTYPES)}."
        )
    # A dtype of foreign byte order has another name, such as '>i2', and is refused.
    if str(array.dtype) not in _DTYPES[suffix]:
        raise ValueError(
            f"{path}: dtype {array.dtype} cannot be stored as {suffix}; "
            f"allowed: {', '.join(_DTYPES[suffix])}."
        )
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"{path}: shape {array.shape} must be a non-empty [height width]."
        )


def _settings(suffix: str, array: np.ndarray) -> list[int]:
    if suffix == ".png":
        return []
    height = array.shape[0]
    return [
        cv2.IMWRITE_TIFF_COMPRESSION,
        _TIFF_UNCOMPRESSED,
        cv2.IMWRITE_TIFF_ROWSPERSTRIP,
        height,
    ]
