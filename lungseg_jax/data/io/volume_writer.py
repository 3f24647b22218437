"""Volumes, written slice by slice, with the geometry of an existing one."""

import contextlib
import errno
import gzip
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from lungseg_jax.data.io.formats import (
    EITHER,
    VOLUME,
    format_of,
    split_suffix,
    suffixes,
)
from lungseg_jax.data.io.segments import LUNG, Segment, is_dicom_segmentation
from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import require_utf8
from lungseg_jax.runtime.temporaries import working_folder

if TYPE_CHECKING:
    from lungseg_jax.data.io.dicom_segmentation import DicomSegmentationWriter

LEVEL = 4  # of compression; masks are small at any
CHUNK = 2**20
_CANNOT_RESERVE = {errno.EINVAL, errno.EOPNOTSUPP}  # on this file system
PLAIN, VOXELS, PACKED = "plain", "voxels", "packed"  # files in a working folder


def open_mask(
    path: Path, like: Volume, segments: Sequence[Segment]
) -> "VolumeWriter | DicomSegmentationWriter":
    """Return the writer of a mask: a `VolumeWriter`, or one of a DICOM segmentation.

    Raises:
      UserError: there cannot be such a mask of this volume.
    """
    if is_dicom_segmentation(path):
        from lungseg_jax.data.io.dicom_segmentation import DicomSegmentationWriter

        return DicomSegmentationWriter(path, like, segments)
    return VolumeWriter(path, like, np.uint8, segments=segments)


class VolumeWriter:
    """A context manager; the complete file appears under its name at the end.

    Missing folders are created.

    Args:
      path: the file; its suffix chooses the format. It replaces an existing one.
      like: the volume whose size and geometry to take over.
      dtype: of the voxels: uint8, int16 or float32.
      segments: what the values are, for formats that store it.

    Raises:
      UserError: such a volume cannot be written in this format, or there.
    """

    def __init__(
        self,
        path: Path,
        like: Volume,
        dtype: type,
        *,
        segments: Sequence[Segment] = (LUNG,),
    ):
        self._path, self._like, self._dtype = path, like, np.dtype(dtype)
        require_utf8(path)  # SimpleITK accepts no other names
        writable = suffixes(VOLUME, EITHER, writable=True)
        can_write = split_suffix(path)[1] in writable
        if not can_write or like.spacing_mm is None and format_of(path).has_geometry:
            raise UserError(
                f"{path} cannot be a volume like {like.name}.",
                rule=f"one of {', '.join(writable)}; an array has no geometry, and its "
                "mask is another array.",
            )
        self._format, self._segments = format_of(path), segments
        self._complete: Path | None = None

    def __enter__(self) -> "VolumeWriter":
        geometry = self._like.geometry
        size = int(np.prod(geometry.size)) * self._dtype.itemsize
        # The header of compressed voxels follows when their size is known.
        header = b"" if self._format.compression else self._header(size)
        try:
            with contextlib.ExitStack() as stack:
                self._scratch = stack.enter_context(working_folder(self._path))
                self._plain = self._scratch / PLAIN
                self._is_written = np.zeros(geometry.count, bool)
                with self._plain.open("wb") as file:
                    file.write(header)
                    self._offset = file.tell()
                    _reserve(file, self._offset + size)
                self._file = self._plain.open("r+b")
                self._cleanup = stack.pop_all()  # from here on, __exit__ removes it
        except OSError as e:
            raise self._unwritable(e) from e
        return self

    def write(self, k: int, image: np.ndarray) -> None:
        """Write slice `k` `[h w]`, given in the standard orientation.

        Raises:
          UserError: the disk is full.
        """
        geometry = self._like.geometry
        if image.shape != geometry.shape:
            raise ValueError(f"{image.shape} is not {geometry.shape}")
        plane = geometry.from_standard(image.astype(self._dtype))
        try:
            if geometry.axes[0] == 2:
                self._file.seek(self._offset + geometry.file_index(k) * plane.nbytes)
                self._file.write(plane.tobytes())
            else:
                self._write_strided(geometry.index(k), plane)
        except OSError as e:
            raise self._unwritable(e) from e
        self._is_written[k] = True

    def finish(self) -> None:
        """Complete the file under a temporary name; what is left to do is to rename it.

        Without this call, the end of the context does it.

        Raises:
          UserError: the disk is full.
          ValueError: a slice is missing.
        """
        if not self._is_written.all():
            raise ValueError(f"slice {np.argmin(self._is_written)} is missing")
        try:
            self._file.close()
            self._complete = self._encode()
        except OSError as e:
            raise self._unwritable(e) from e

    def __exit__(self, exception_type, *_) -> None:
        try:
            self._file.close()
            if exception_type is None:
                if self._complete is None:
                    self.finish()
                os.replace(self._complete, self._path)
        except OSError as e:
            raise self._unwritable(e) from e
        finally:
            self._cleanup.close()

    def _header(self, size: int) -> bytes:
        """Return the bytes that precede the voxels, which take `size` bytes."""
        header = self._format.volume_header(self._like, self._dtype, size)
        if not self._format.add_segments:
            return header
        size_xyz = self._like.geometry.size
        return self._format.add_segments(header, size_xyz, self._segments)

    def _write_strided(self, where: tuple, plane: np.ndarray) -> None:
        """Write a slice whose voxels are not contiguous in the file."""
        x, y, z = self._like.geometry.size
        mapped = np.memmap(
            self._plain, self._dtype, "r+", offset=self._offset, shape=(z, y, x)
        )
        mapped[where] = plane  # unmapped on return, so no page stays in memory

    def _encode(self) -> Path:
        """Return the complete file, compressed if the format asks for it."""
        if self._format.compression:
            return self._compress_voxels()
        if not self._format.is_gzipped:
            return self._plain
        packed = self._scratch / PACKED
        # Without a time and a name, equal masks are equal files.
        with (
            self._plain.open("rb") as plain,
            packed.open("wb") as file,
            gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as out,
        ):
            shutil.copyfileobj(plain, out, CHUNK)
        return packed

    def _compress_voxels(self) -> Path:
        """Return a file with a header as it is, and compressed voxels behind it."""
        voxels, packed = self._scratch / VOXELS, self._scratch / PACKED
        compressor = zlib.compressobj(LEVEL, wbits=self._format.compression)
        with self._plain.open("rb") as plain, voxels.open("wb") as file:
            while chunk := plain.read(CHUNK):
                file.write(compressor.compress(chunk))
            file.write(compressor.flush())
        with voxels.open("rb") as file, packed.open("wb") as out:
            out.write(self._header(voxels.stat().st_size))
            shutil.copyfileobj(file, out, CHUNK)
        return packed

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"{self._path} cannot be written: {error.strerror or error}.",
            remedy="check the folder, and the free space on its disk.",
        )


def _reserve(file: BinaryIO, size: int) -> None:
    """Extend a file to its size, with zeros that have their place on the disk.

    In a file with holes, a full disk would kill the process that writes into its mapping.
    """
    written = file.tell()
    file.flush()
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as e:
            if e.errno not in _CANNOT_RESERVE:
                raise
    for start in range(written, size, CHUNK):
        file.write(bytes(min(CHUNK, size - start)))
