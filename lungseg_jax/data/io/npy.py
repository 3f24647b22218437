"""NumPy files: a slice `[h w]` or a volume `[n h w]` without a geometry."""

import os
import uuid
from pathlib import Path

import numpy as np

from lungseg_jax.data.intensity import require_finite
from lungseg_jax.runtime.errors import UserError

ARRAY = ".npy"


def open_array(path: Path) -> np.ndarray:
    """The array of a file, mapped and not read.

    Raises:
      UserError: it cannot be read, is damaged, or holds no numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror or e}.") from e
    except (ValueError, EOFError, SyntaxError, OverflowError, TypeError) as e:
        raise UserError(
            f"{path} is damaged, or no array of numbers.",
            rule="what numpy.save writes of an array of numbers.",
        ) from e
    if array.dtype.kind not in "iuf" or array.ndim not in (2, 3) or not array.size:
        raise UserError(
            f"{path} holds {array.dtype}{list(array.shape)}.",
            rule="numbers, a slice [h w] or a volume [n h w].",
        )
    return array


def read_shape(path: Path) -> tuple[int, ...]:
    """Of the array in a file.

    Raises:
      UserError: as `open_array`.
    """
    return open_array(path).shape


def read_array(path: Path) -> np.ndarray:
    """A slice `[h w]`.

    Raises:
      UserError: as `open_array`, or pixels that are not finite.
    """
    image = np.array(open_array(path))
    require_finite(image, str(path))
    return image


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes an array, whole or not at all; a file of that name is replaced."""
    beside = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{ARRAY}")
    try:
        np.save(beside, array, allow_pickle=False)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
