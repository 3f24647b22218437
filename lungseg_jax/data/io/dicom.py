"""DICOM series: which files make a volume, and in what order."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungseg_jax.data.io import decompression
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.images import MAX_PIXELS
from lungseg_jax.runtime.errors import UserError, bullet_list, pluralize
from lungseg_jax.runtime.files import require_utf8

MAGIC, PREAMBLE = b"DICM", 128
TOLERANCE = 0.01  # of the distance of slices: what rounding in the files makes
ROUNDED_MM = 0.1  # some files have positions in whole tenths
SERIES, DESCRIPTION = "0020|000e", "0008|103e"
PLACE = {  # without these a slice lies anywhere, and ITK says nothing
    "0028|0030": "pixel spacing",
    "0020|0032": "position",
    "0020|0037": "orientation",
}
THICKNESS, PHOTOMETRIC = "0018|0050", "0028|0004"
# What a file is says element (0002,0002), near its beginning; of CT it starts like this.
CLASS, CT = b"\x02\x00\x02\x00UI", b"1.2.840.10008.5.1.4.1.1.2"


def is_dicom(path: Path) -> bool:
    """Whether it is a DICOM file, or a folder with one directly in it."""
    if path.is_dir():
        return any(map(_has_magic, path.iterdir()))
    return _has_magic(path)


def read_series(path: Path, series: str, scratch: Path) -> tuple[Path, Geometry]:
    """The slices of a series in one file in `scratch`, as float32, and their geometry.

    Args:
      path: a file, or a folder with the files of one or more series.
      series: UID of the one that is meant; "" where there is one alone.
      scratch: an empty folder.

    Raises:
      UserError: several series and none chosen, a damaged file, slices that are no stack
        of equal distances, or that lie twice.
    """
    headers = _chosen(path, series) if path.is_dir() else [_Header(path)]
    for header in headers:
        header.check()
    headers.sort(key=lambda header: header.position)
    geometry = _geometry(headers)
    raw = scratch / "voxels.raw"
    try:
        with raw.open("wb") as out:
            for header in headers:
                out.write(header.voxels().tobytes())
    except OSError as e:
        raise UserError(
            f"{path} cannot be unpacked into {scratch.parent}: {e.strerror}.",
            rule=f"{4e-6 * np.prod(geometry.size):.0f} MB are needed there.",
            remedy="make room, or name another folder by TMPDIR.",
        ) from e
    return decompression.write_mhd_header(
        raw, geometry, sitk.sitkFloat32, scratch
    ), geometry


class _Header:
    """A DICOM file that holds an image, before its pixels are read."""

    def __init__(self, file: Path):
        self.file = file
        self._reader = sitk.ImageFileReader()
        self._reader.SetImageIO("GDCMImageIO")
        self._reader.SetFileName(require_utf8(file))
        try:
            self._reader.ReadImageInformation()
        except RuntimeError as e:
            raise _damaged(file) from e
        self.size = self._reader.GetSize()
        self.spacing = self._reader.GetSpacing()
        self.origin = np.array(self._reader.GetOrigin())
        self.direction = self._reader.GetDirection()

    def says(self, tag: str) -> str | None:
        """An element as text; None where there is none."""
        if not self._reader.HasMetaDataKey(tag):
            return None
        return self._reader.GetMetaData(tag).strip()

    def check(self) -> None:
        """Whether it can be part of a volume.

        Raises:
          UserError: it is no gray slice of a size that anyone has, or lies nowhere.
        """
        if len(self.size) != 3 or self._reader.GetNumberOfComponents() != 1:
            raise UserError(
                f"{self.file} has {self._reader.GetNumberOfComponents()} values in a "
                "pixel.",
                rule="CT slices are gray.",
            )
        if self.size[2] != 1:
            raise UserError(
                f"{self.file} has {self.size[2]} frames.",
                rule="a DICOM file holds one slice: of many in one file, the order and "
                "the values are not read here.",
                remedy="convert it to NIfTI first, as dcm2niix does.",
            )
        if self.says(PHOTOMETRIC) == "MONOCHROME1":
            raise UserError(
                f"{self.file} is MONOCHROME1: its values come inverted.",
                rule="CT slices are MONOCHROME2.",
                remedy="export the series again, or convert it to NIfTI first.",
            )
        if not 0 < self.size[0] * self.size[1] <= MAX_PIXELS:
            raise UserError(
                f"{self.file} declares {self.size[0]} x {self.size[1]} pixels.",
                rule=f"at most {MAX_PIXELS}.",
                remedy="if the size is not true, the file is damaged.",
            )
        for tag, name in PLACE.items():
            if self.says(tag) is None:
                raise UserError(
                    f"{self.file} does not say its {name} ({tag.replace('|', ',')}).",
                    rule="a CT slice says where in the patient it lies.",
                    remedy="export the series again with these elements.",
                )

    @property
    def thickness(self) -> float:
        """In mm; 1 where it is not said."""
        try:
            return float(self.says(THICKNESS) or 1.0)
        except ValueError:
            return 1.0

    @property
    def position(self) -> float:
        """Along the normal, in mm."""
        return float(self.origin @ self.normal)

    @property
    def normal(self) -> np.ndarray:
        """Of the slice, towards the next."""
        return np.reshape(self.direction, (3, 3))[:, 2]

    def voxels(self) -> np.ndarray:
        """`[z y x]` float32, in Hounsfield units where slope and intercept are given."""
        try:
            image = self._reader.Execute()
        except RuntimeError as e:
            raise _damaged(self.file) from e
        return sitk.GetArrayFromImage(image).astype(np.float32)


def _chosen(folder: Path, series: str) -> list[_Header]:
    """The files of the series that is meant."""
    by_series: dict[str, list[_Header]] = {}
    lost = []
    for file in sorted(folder.iterdir()):
        if not _has_magic(file):
            continue
        try:
            header = _Header(file)
        except UserError:
            if _is_ct(file):  # others are reports or structure sets, and not images
                lost.append(str(file))
            continue
        by_series.setdefault(header.says(SERIES) or "none", []).append(header)
    if lost:
        raise UserError(
            f"{pluralize(len(lost), 'DICOM file')} cannot be read:\n{bullet_list(lost)}",
            rule="every DICOM file in a folder is whole.",
            remedy="copy them again, or move them out of the folder.",
        )
    if not by_series:
        raise UserError(
            f"{folder} has DICOM files and no slices among them.",
            rule="the files of a CT series lie in one folder.",
            remedy="name the folder in which the slices lie, maybe one below.",
        )
    if series and series not in by_series:
        raise UserError(
            f"{folder} has no series {series}.\n{_listed(by_series)}",
            rule="--series is one of those above.",
        )
    if len(by_series) > 1 and not series:
        raise UserError(
            f"{folder} has {len(by_series)} series:\n{_listed(by_series)}",
            rule="a mask is of one series.",
            remedy="choose one with --series=UID.",
        )
    return by_series[series or next(iter(by_series))]


def _listed(by_series: Mapping[str, Sequence[_Header]]) -> str:
    rows = []
    for name, headers in by_series.items():
        words = headers[0].says(DESCRIPTION) or "no description"
        rows.append(f"{name}  {pluralize(len(headers), 'file')}  {words}")
    return bullet_list(rows)


def _geometry(headers: Sequence[_Header]) -> Geometry:
    """Of a stack, in the order of its positions; of one slice, by its thickness."""
    first = headers[0]
    if len(headers) == 1:
        return Geometry(
            tuple(first.size),
            (*first.spacing[:2], first.thickness),
            tuple(first.origin.tolist()),
            tuple(first.direction),
        )
    for header in headers:
        alike = (
            header.size == first.size
            and np.allclose(header.direction, first.direction, atol=1e-4)
            and np.allclose(header.spacing[:2], first.spacing[:2], rtol=1e-4)
        )
        if not alike:
            raise UserError(
                f"{header.file} and {first.file} have different sizes, spacings or "
                "orientations.",
                rule="the slices of a series are alike.",
                remedy="move localizers and reformatted slices out of the folder.",
            )
    steps = np.diff([header.position for header in headers])
    distance = float(np.median(steps))
    for header, other, step in zip(headers, headers[1:], steps, strict=False):
        if step < TOLERANCE * max(distance, 1e-3):
            raise UserError(
                f"{header.file} and {other.file} lie in one place.",
                rule="each slice of a series has a position of its own.",
                remedy="move one of them out of the folder.",
            )
        rounding = min(ROUNDED_MM + 1e-6, 0.2 * distance)
        if abs(step - distance) > max(TOLERANCE * distance, rounding):
            raise UserError(
                f"between {header.file} and {other.file} are {step:.3f} mm, and "
                f"{distance:.3f} mm between most slices.",
                rule="the slices of a series lie at equal distances.",
                remedy="add what is missing; or segment the files one by one.",
            )
    across = (headers[-1].origin - first.origin) / (len(headers) - 1)
    if np.linalg.norm(np.cross(across, first.normal)) > TOLERANCE * distance:
        raise UserError(
            f"the slices of {first.file.parent} are shifted sideways (a tilted gantry).",
            rule="slices lie above each other.",
            remedy="resample the series to a straight one first.",
        )
    mean = float(np.mean(steps))
    return Geometry(
        (*first.size[:2], len(headers)),
        (*first.spacing[:2], mean),
        tuple(first.origin.tolist()),
        tuple(first.direction),
    )


def _has_magic(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            file.seek(PREAMBLE)
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _is_ct(path: Path) -> bool:
    """Whether a DICOM file says so."""
    with path.open("rb") as file:
        start = file.read(1024)
    return start.partition(CLASS)[2][2:].startswith(CT)


def _damaged(file: Path) -> UserError:
    return UserError(
        f"{file} is damaged: it cannot be read as DICOM.",
        rule="a whole DICOM file of a CT slice.",
        remedy="copy it again, or move it out of the folder.",
    )
