"""Volumes, written slice by slice, with the geometry of the one they were made from.

SimpleITK writes the header, of an image of one slice; the number of slices is put in, and
the voxels follow as they come.
"""

import gzip
import io
import os
import re
import shutil
import struct
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungseg_jax.data.io import nifti
from lungseg_jax.data.io.npy import ARRAY
from lungseg_jax.data.io.volumes import VOLUME_SUFFIXES, Volume
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import require_utf8

NIFTI_SLICES = 40 + 2 * 3  # where a NIfTI-1 header has the third of its sizes, int16
LEVEL = 4  # of gzip: masks are small at any


class VolumeWriter:
    """A context; the file appears under its name when it ends well, whole.

    Args:
      path: of the file; its suffix says the format. One of that name is replaced.
      like: the volume whose size and geometry it has.
      dtype: of the voxels: uint8, int16 or float32.
    """

    def __init__(self, path: Path, like: Volume, dtype: type):
        self._path, self._like, self._dtype = path, like, np.dtype(dtype)
        require_utf8(path)  # SimpleITK takes no other
        suffixes = [s for s in VOLUME_SUFFIXES if path.name.lower().endswith(s)]
        if not suffixes or like.spacing_mm is None and suffixes != [ARRAY]:
            raise UserError(
                f"{path} cannot be the mask of {like.name}.",
                rule=f"one of {', '.join(VOLUME_SUFFIXES)}; an array has no geometry and "
                f"its mask is {ARRAY}.",
            )
        self._suffix = max(suffixes, key=len)

    def __enter__(self) -> "VolumeWriter":
        geometry = self._like.geometry
        try:
            self._scratch = Path(
                tempfile.mkdtemp(prefix=f".{self._path.name}.", dir=self._path.parent)
            )
            self._plain = self._scratch / f"plain{self._suffix.removesuffix('.gz')}"
            self._written = np.zeros(geometry.count, bool)
            with self._plain.open("wb") as file:
                file.write(self._header())
                self._offset = file.tell()
                size = int(np.prod(geometry.size)) * self._dtype.itemsize
                file.truncate(self._offset + size)
            self._file = self._plain.open("r+b")
        except OSError as e:
            raise self._unwritable(e) from e
        return self

    def write(self, k: int, image: np.ndarray) -> None:
        """Slice `k` `[h w]`, in the standard orientation.

        Raises:
          UserError: the disk is full.
        """
        geometry = self._like.geometry
        if image.shape != geometry.shape:
            raise ValueError(f"{image.shape} is not {geometry.shape}")
        plane = geometry.from_standard(image.astype(self._dtype))
        axis, position = geometry.axes[0], geometry.position(k)
        try:
            if axis == 2:
                self._file.seek(self._offset + position * plane.nbytes)
                self._file.write(plane.tobytes())
            else:
                self._write_across(axis, position, plane)
        except OSError as e:
            raise self._unwritable(e) from e
        self._written[k] = True

    def __exit__(self, kind, *_) -> None:
        try:
            self._file.close()
            if kind is None:
                if not self._written.all():
                    raise ValueError(f"slice {np.argmin(self._written)} is missing")
                os.replace(self._finished(), self._path)
        except OSError as e:
            raise self._unwritable(e) from e
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _write_across(self, axis: int, position: int, plane: np.ndarray) -> None:
        """Where the voxels of a slice do not lie together."""
        x, y, z = self._like.geometry.size
        where = [slice(None)] * 3
        where[2 - axis] = position
        mapped = np.memmap(
            self._plain, self._dtype, "r+", offset=self._offset, shape=(z, y, x)
        )
        mapped[tuple(where)] = plane  # unmapped when it goes: no page of it stays

    def _finished(self) -> Path:
        if not self._suffix.endswith(".gz"):
            return self._plain
        packed = self._scratch / "packed"
        # Without time and name in it, equal masks are equal files.
        with (
            self._plain.open("rb") as plain,
            packed.open("wb") as file,
            gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as out,
        ):
            shutil.copyfileobj(plain, out, 2**20)
        return packed

    def _header(self) -> bytes:
        geometry = self._like.geometry
        x, y, z = geometry.size
        if self._suffix == ARRAY:
            return _array_header(self._dtype, (z, y, x))
        one = sitk.GetImageFromArray(np.zeros((1, y, x), self._dtype))
        one.SetSpacing(geometry.spacing)
        one.SetOrigin(geometry.origin)
        one.SetDirection(geometry.direction)
        file = self._scratch / f"header{self._plain.suffix}"
        try:
            sitk.WriteImage(one, str(file), useCompression=False)
        except RuntimeError as e:
            raise UserError(f"{self._path} cannot be written: {e}") from e
        header = file.read_bytes()[: -one.GetNumberOfPixels() * self._dtype.itemsize]
        file.unlink()
        if self._suffix.startswith(".nii"):
            slices = struct.pack("<h", z)
            header = header[:NIFTI_SLICES] + slices + header[NIFTI_SLICES + 2 :]
            like = self._like.nifti_header
            return nifti.placed_like(header, like) if like else header
        pattern = rb"(?m)^((?:sizes:|DimSize =) \d+ \d+) 1$"
        header, found = re.subn(pattern, rb"\g<1> %d" % z, header)
        assert found == 1, header
        return header

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"{self._path} cannot be written: {error.strerror or error}.",
            remedy="check the folder and the room that is left there.",
        )


def _array_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    fields = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()
