"""The file formats: one row per suffix says how its files are read and written.

Adding a format takes a module that reads it and a row of `FORMATS`. Everything that reads
or writes files (data folders, `lungseg predict`, `lungseg compare`) looks formats up here
when it is called. DICOM files are recognized by their content, since most have no suffix.
"""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from lungseg_jax.data.io import images, npy, slicer
from lungseg_jax.data.io.dicom_files import is_dicom
from lungseg_jax.data.io.segments import Segment
from lungseg_jax.data.io.volume_headers import mha_header, nrrd_header
from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.runtime.errors import UserError

SLICE, VOLUME, EITHER = "slice", "volume", "either"  # what files of a format hold
ZLIB, GZIP = 15, 31  # streams of compressed voxels: `wbits` of `zlib.compressobj`


@dataclasses.dataclass(frozen=True)
class Format:
    """How files with one suffix are read and written; None if they cannot be.

    A format that has `read_slice` holds slices, one that has `open_volume` holds volumes.

    Attributes:
      read_slice: path -> image `[h w]` with finite values.
      read_mask: path -> mask `[h w]`, uint8 in {0, 1}; by default from `read_slice`.
      write_slice: (path, array `[h w]`) -> None; masks are uint8 in {0, 255}.
      open_volume: path -> context manager of a `Volume`.
      volume_header: (volume, dtype, size) -> the bytes that precede the voxels `[z y x]`
        in a file with the size and geometry of `volume`; they take `size` bytes there.
      add_segments: (header, size, segments) -> the same header, which also describes the
        segments of a mask.
      is_gzipped: whether a volume is written as a gzip file.
      compression: `ZLIB` or `GZIP` if only the voxels behind the header are compressed.
      has_geometry: whether volumes have spacing and orientation.
      is_volume: path -> whether it holds a volume; for formats that hold either.
      mask_suffix: of the mask of such a file, if it is another format.
    """

    read_slice: Callable[[Path], np.ndarray] | None = None
    read_mask: Callable[[Path], np.ndarray] | None = None
    write_slice: Callable[[Path, np.ndarray], None] | None = None
    open_volume: Callable[[Path], AbstractContextManager[Volume]] | None = None
    volume_header: Callable[[Volume, np.dtype, int], bytes] | None = None
    add_segments: (
        Callable[[bytes, tuple[int, int, int], Sequence[Segment]], bytes] | None
    ) = None
    is_gzipped: bool = False
    compression: int | None = None
    has_geometry: bool = True
    is_volume: Callable[[Path], bool] | None = None
    mask_suffix: str = ""

    @property
    def kind(self) -> str:
        """`SLICE`, `VOLUME` or `EITHER`."""
        if self.open_volume is None:
            return SLICE
        return VOLUME if self.read_slice is None else EITHER

    @property
    def is_writable(self) -> bool:
        """Whether everything that it reads can also be written."""
        slices = self.read_slice is None or self.write_slice is not None
        return slices and (self.open_volume is None or self.volume_header is not None)


# SimpleITK and nibabel take half a second to import, so they are imported with the first
# volume: `lungseg check` reads none.


def _open_nifti(path: Path) -> AbstractContextManager[Volume]:
    from lungseg_jax.data.io import nifti

    return nifti.open_volume(path)


def _nifti_header(volume: Volume, dtype: np.dtype, size: int) -> bytes:
    from lungseg_jax.data.io import nifti

    return nifti.volume_header(volume, dtype)


def _open_itk(path: Path) -> AbstractContextManager[Volume]:
    from lungseg_jax.data.io import itk

    return itk.open_volume(path)


_IMAGE = Format(
    read_slice=images.read_image,
    read_mask=images.read_mask,
    write_slice=images.write_image,
)
_NRRD = Format(open_volume=_open_itk, volume_header=nrrd_header, compression=GZIP)
FORMATS: dict[str, Format] = {  # by suffix, in lower case
    ".tif": _IMAGE,
    ".tiff": _IMAGE,
    ".png": _IMAGE,
    ".nii": Format(open_volume=_open_nifti, volume_header=_nifti_header),
    ".nii.gz": Format(
        open_volume=_open_nifti, volume_header=_nifti_header, is_gzipped=True
    ),
    ".nrrd": _NRRD,
    ".seg.nrrd": dataclasses.replace(_NRRD, add_segments=slicer.add_segments),
    ".nhdr": Format(open_volume=_open_itk, mask_suffix=".nrrd"),
    ".mha": Format(open_volume=_open_itk, volume_header=mha_header, compression=ZLIB),
    ".mhd": Format(open_volume=_open_itk, mask_suffix=".mha"),
    ".npy": Format(
        read_slice=npy.read_slice,
        read_mask=npy.read_mask,
        write_slice=npy.write_slice,
        open_volume=npy.open_volume,
        volume_header=npy.volume_header,
        has_geometry=False,
        is_volume=npy.is_volume,
    ),
}


def suffixes(*kinds: str, writable: bool = False) -> tuple[str, ...]:
    """Return the suffixes of all formats, or of those of some kinds.

    Args:
      kinds: of `SLICE`, `VOLUME` and `EITHER`; all if there are none.
      writable: only formats that can be written.
    """
    return tuple(
        suffix
        for suffix, format in FORMATS.items()
        if (not kinds or format.kind in kinds) and (format.is_writable or not writable)
    )


def series_uids(folder: Path) -> list[str]:
    """Return the UIDs of the DICOM series in a folder.

    Raises:
      UserError: a file that may be one of a series cannot be read, or is damaged.
    """
    from lungseg_jax.data.io import dicom

    return dicom.series_uids(folder, suffixes=suffixes())


def split_suffix(path: Path) -> tuple[str, str]:
    """Split a file name: "scan.NII.GZ" into "scan" and ".nii.gz".

    The suffix is "" if it is not in `FORMATS`.
    """
    for suffix in sorted(FORMATS, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)], suffix
    return path.name, ""


def format_of(path: Path) -> Format:
    """Return the format of a file, by its name.

    Raises:
      UserError: the suffix is unknown.
    """
    suffix = split_suffix(path)[1]
    if not suffix:
        raise UserError(
            f"{path} is not in a known format.", rule=f"one of {', '.join(FORMATS)}."
        )
    return FORMATS[suffix]


def kind_of(path: Path) -> str:
    """Return the kind of a file by its name, or "" if the suffix is unknown."""
    suffix = split_suffix(path)[1]
    return FORMATS[suffix].kind if suffix else ""


def is_volume(path: Path) -> bool:
    """Return whether a file holds a volume.

    Only files that may hold either are opened; DICOM files are not known by their names.

    Raises:
      UserError: such a file cannot be read.
    """
    kind = kind_of(path)
    return kind == VOLUME or kind == EITHER and format_of(path).is_volume(path)


def read_slice_array(path: Path) -> np.ndarray:
    """Return the image `[h w]` in a file.

    Raises:
      UserError: the file cannot be read, or holds no slice.
    """
    return _slice_format(path).read_slice(path)


def read_slice_mask(path: Path) -> np.ndarray:
    """Return the mask `[h w]` in a file of {0, 1} or {0, 255}, as uint8 in {0, 1}.

    Raises:
      UserError: the file cannot be read, holds no slice, or has other values.
    """
    format = _slice_format(path)
    if format.read_mask:
        return format.read_mask(path)
    return images.as_mask(format.read_slice(path), str(path))


def write_slice(path: Path, array: np.ndarray) -> None:
    """Write a slice `[h w]` atomically; it replaces an existing file.

    Raises:
      UserError: the format is read-only, or the path cannot be written.
      ValueError: the format cannot hold the dtype.
    """
    format = format_of(path)
    if format.write_slice is None:
        raise UserError(
            f"{path} cannot be written.",
            rule=f"one of {', '.join(suffixes(SLICE, EITHER, writable=True))}.",
        )
    format.write_slice(path, array)


def open_volume(path: Path, *, series: str = "") -> AbstractContextManager[Volume]:
    """Open a volume for as long as the returned context lasts.

    Args:
      path: a volume, a DICOM file, or the folder of a DICOM series.
      series: UID of the DICOM series, if the folder has several.

    Raises:
      UserError: it cannot be read, is damaged, is not a gray 3D image, or declares more
        voxels than any CT scan.
    """
    if path.is_dir() or is_dicom(path):
        from lungseg_jax.data.io import dicom

        return dicom.open_volume(path, series=series, suffixes=suffixes())
    format = format_of(path)
    if format.open_volume is None:
        raise UserError(
            f"{path} is not a volume.",
            rule=f"DICOM, or one of {', '.join(suffixes(VOLUME, EITHER))}.",
        )
    return format.open_volume(path)


def _slice_format(path: Path) -> Format:
    format = format_of(path)
    if format.read_slice is None:
        raise UserError(
            f"{path} is not a slice.",
            rule=f"one of {', '.join(suffixes(SLICE, EITHER))}.",
        )
    return format
