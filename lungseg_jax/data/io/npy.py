"""NumPy files: a slice `[h w]`, or a volume `[n h w]` without a geometry."""

import contextlib
import io
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from lungseg_jax.data.intensity import require_finite
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.images import as_mask
from lungseg_jax.data.io.volumes import Volume, require_plausible
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import atomic_write


def is_volume(path: Path) -> bool:
    """Return whether a file holds a volume `[n h w]` rather than a slice.

    Raises:
      UserError: the file cannot be read, is damaged, or is neither.
    """
    return _map_array(path).ndim == 3


def read_slice(path: Path) -> np.ndarray:
    """Return the slice `[h w]` in a file.

    Raises:
      UserError: the file cannot be read, is damaged, is not an array of finite numbers,
        or is a volume.
    """
    image = np.array(_map_array(path, dimensions=(2,), kinds="iuf"))
    require_finite(image, str(path))
    return image


def read_mask(path: Path) -> np.ndarray:
    """Return the mask `[h w]` in a file, which may be boolean, as uint8 in {0, 1}.

    Raises:
      UserError: as `read_slice`, or the file has other values than {0, 1} or {0, 255}.
    """
    return as_mask(_map_array(path, dimensions=(2,)), str(path))


def write_slice(path: Path, array: np.ndarray) -> None:
    """Write a slice `[h w]` atomically; it replaces an existing file.

    Raises:
      UserError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


@contextlib.contextmanager
def open_volume(path: Path) -> Iterator[Volume]:
    """Open a volume `[n h w]`, or a slice `[h w]` as a volume of one.

    Raises:
      UserError: as `is_volume`, or the array is larger than any CT scan.
    """
    array = _map_array(path)
    if array.ndim == 2:
        array = array[None]
    n, height, width = array.shape
    geometry = Geometry((width, height, n))
    require_plausible(geometry, path)
    is_contiguous, offset = array.flags.c_contiguous, array.offset

    def read_plane(axis: int, index: int) -> np.ndarray:
        if not is_contiguous:
            return np.array(array[index])
        # Read rather than mapped: mapped pages count as memory.
        start = offset + index * height * width * array.dtype.itemsize
        plane = np.fromfile(path, array.dtype, height * width, offset=start)
        return plane.reshape(height, width).astype(array.dtype.newbyteorder("="))

    yield Volume(str(path), geometry, read_plane, has_spacing=False, is_placed=False)


def volume_header(volume: Volume, dtype: np.dtype, size: int) -> bytes:
    """Return the bytes that precede the voxels of an array like `volume`."""
    x, y, z = volume.geometry.size
    fields = {"descr": dtype.str, "fortran_order": False, "shape": (z, y, x)}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


def _map_array(
    path: Path, dimensions: Collection[int] = (2, 3), kinds: str = "iufb"
) -> np.ndarray:
    """Return the array in a file, mapped into memory but not read."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror or e}.") from e
    except Exception as e:  # a damaged header can fail anywhere in the parsers
        raise UserError(
            f"{path} is damaged, or not an array of numbers.",
            rule="an array of numbers as written by numpy.save.",
        ) from e
    if array.dtype.kind not in kinds or array.ndim not in dimensions or not array.size:
        shapes = {2: "a slice [h w]", 3: "a volume [n h w]"}
        raise UserError(
            f"{path} holds {array.dtype}{list(array.shape)}.",
            rule=f"numbers: {' or '.join(shapes[d] for d in dimensions)}.",
        )
    return array
