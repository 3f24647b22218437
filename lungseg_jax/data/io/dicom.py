"""DICOM series: the slices of a volume, and their order."""

import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungseg_jax.data.io import itk
from lungseg_jax.data.io.dicom_folder import read_file, read_folder
from lungseg_jax.data.io.dicom_slice import DicomSlice
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.volumes import Volume, require_plausible
from lungseg_jax.runtime.errors import UserError

OWNERS = {  # by tag: its name, and whom it identifies
    "0010|0020": ("patient IDs (0010,0020)", "patient"),
    "0020|000d": ("study UIDs (0020,000D)", "study"),
    "0020|0052": ("frames of reference (0020,0052)", "frame of reference"),
}
TOLERANCE = 0.01  # of the distance between slices, for rounding in the files
ROUNDING_MM = 0.1  # some files round positions to tenths of a millimetre


@contextlib.contextmanager
def open_volume(
    path: Path, *, series: str = "", suffixes: Sequence[str] = ()
) -> Iterator[Volume]:
    """Open a DICOM file or the folder of a series; its voxels are copied into TMPDIR.

    Args:
      path: a file, or a folder with the files of one or more series.
      series: UID of the series to open; "" if there is only one.
      suffixes: of files in other formats, which may be in the folder.

    Raises:
      UserError: there are several series and none is chosen, a file is damaged or not an
        axial CT slice, or the slices overlap or do not form a stack of equal distances.
    """
    slices = _sorted_slices(path, series, suffixes)
    geometry = _stack_geometry(slices)
    require_plausible(geometry, path)
    with tempfile.TemporaryDirectory(prefix="lungseg-") as scratch:
        file = _copy_voxels(slices, geometry, path, Path(scratch))
        yield Volume(
            str(path),
            geometry,
            itk.plane_reader(file, geometry, path),
            sources=[(dicom_slice.file, dicom_slice.frame) for dicom_slice in slices],
        )


def series_uids(folder: Path, *, suffixes: Sequence[str] = ()) -> list[str]:
    """Return the UIDs of the series in a folder, and print what else is in it.

    With a single series, nothing is printed: that is left to `open_volume`.

    Raises:
      UserError: see `read_folder`.
    """
    found = read_folder(folder, suffixes=suffixes)
    if len(found.series) != 1:
        found.say_skipped()
    return list(found.series)


def _sorted_slices(
    path: Path, series: str, suffixes: Sequence[str]
) -> list[DicomSlice]:
    """Return the slices of a file or a series by position; what is left out is printed."""
    if path.is_dir():
        found = read_folder(path, suffixes=suffixes)
        slices = found.choose(series)
        if not series:
            found.say_skipped()
    else:
        slices = read_file(path)
    for dicom_slice in slices:
        dicom_slice.check()
    return sorted(slices, key=lambda dicom_slice: dicom_slice.position)


def _copy_voxels(
    slices: Sequence[DicomSlice], geometry: Geometry, path: Path, scratch: Path
) -> Path:
    """Copy slices into one file in `scratch` that SimpleITK reads in parts, as float32."""
    try:
        with (scratch / itk.VOXELS).open("wb") as out:
            for _, group in itertools.groupby(slices, key=lambda s: s.file):
                of_file = list(group)
                for voxels in of_file[0].iter_voxels(of_file):
                    out.write(voxels.tobytes())
    except OSError as e:
        raise UserError(
            f"{path} cannot be unpacked into {scratch.parent}: {e.strerror}.",
            rule=f"it needs {4e-6 * np.prod(geometry.size):.0f} MB there.",
            remedy="free some space there, or set TMPDIR to another folder.",
        ) from e
    return itk.write_mhd_header(scratch, geometry, sitk.sitkFloat32)


def _stack_geometry(slices: Sequence[DicomSlice]) -> Geometry:
    """Return the geometry of slices sorted by position; of one, by its thickness."""
    first = slices[0]
    if len(slices) == 1:
        distance = first.thickness
    else:
        for dicom_slice in slices:
            _require_alike(first, dicom_slice)
        distance = _slice_distance(slices)
    return Geometry(
        (*first.size[:2], len(slices)),
        (*first.spacing[:2], distance),
        tuple(first.origin.tolist()),
        tuple(first.direction),
    )


def _require_alike(first: DicomSlice, dicom_slice: DicomSlice) -> None:
    for tag, (name, owner) in OWNERS.items():
        if len({first.get_tag(tag), dicom_slice.get_tag(tag)} - {None, ""}) > 1:
            raise UserError(
                f"{dicom_slice.name} and {first.name} have different {name}.",
                rule=f"the slices of a series are those of one {owner}.",
                remedy=f"move those of each {owner} into a folder of their own.",
            )
    is_alike = (
        dicom_slice.size == first.size
        and np.allclose(dicom_slice.direction, first.direction, atol=1e-4)
        and np.allclose(dicom_slice.spacing[:2], first.spacing[:2], rtol=1e-4)
    )
    if not is_alike:
        raise UserError(
            f"{dicom_slice.name} and {first.name} have different sizes, spacings or "
            "orientations.",
            rule="the slices of a series are alike.",
            remedy=_remedy(
                first,
                dicom_slice,
                "move localizers and reformatted slices out of the folder.",
            ),
        )


def _remedy(first: DicomSlice, second: DicomSlice, of_files: str) -> str:
    """Return what to do about two slices: in one file, they cannot be moved."""
    if first.file != second.file:
        return of_files
    return "convert the file to NIfTI first, for example with dcm2niix."


def _slice_distance(slices: Sequence[DicomSlice]) -> float:
    """Return the mean distance in mm, and refuse gaps, duplicates and shifts."""
    steps = np.diff([dicom_slice.position for dicom_slice in slices])
    distance = float(np.sort(steps)[(len(steps) - 1) // 2])  # one that occurs
    for lower, upper, step in zip(slices, slices[1:], steps, strict=False):
        if step < TOLERANCE * max(distance, 1e-3):
            raise UserError(
                f"{lower.name} and {upper.name} have the same position.",
                rule="each slice of a series has a different position.",
                remedy=_remedy(lower, upper, "move one of them out of the folder."),
            )
        rounding = min(ROUNDING_MM + 1e-6, 0.2 * distance)
        if abs(step - distance) > max(TOLERANCE * distance, rounding):
            raise UserError(
                f"{lower.name} and {upper.name} are {step:.3f} mm apart, most slices "
                f"{distance:.3f} mm.",
                rule="the slices of a series are equally far apart.",
                remedy=_remedy(
                    lower,
                    upper,
                    "add the missing slices, or segment the files one by one.",
                ),
            )
    _require_straight(slices, distance)
    return float(np.mean(steps))


def _require_straight(slices: Sequence[DicomSlice], distance: float) -> None:
    """Refuse slices that are shifted sideways: some of them, or all by a tilted gantry."""
    first, rule = slices[0], "each slice is straight above the previous one."
    aside = np.array([dicom_slice.origin - first.origin for dicom_slice in slices])
    aside -= np.outer(aside @ first.normal, first.normal)
    tilt = aside[-1] / (len(slices) - 1)
    aside -= np.outer(np.arange(len(slices)), tilt)
    jumps = np.linalg.norm(np.diff(aside, axis=0), axis=1)
    farthest = np.linalg.norm(aside, axis=1).max()
    limit = max(2 * ROUNDING_MM, TOLERANCE * distance)  # the ends are rounded, too
    if farthest > limit:
        lower, upper = slices[jumps.argmax() :][:2]
        raise UserError(
            f"slices of {first.file.parent} are shifted sideways by "
            f"{max(farthest, jumps.max()):.3g} mm, most between {lower.short_name} and "
            f"{upper.short_name}.",
            rule=rule,
            remedy="export the series again, or segment the files one by one.",
        )
    if np.linalg.norm(tilt) > TOLERANCE * distance:  # less may be due to rounding
        raise UserError(
            f"the slices of {first.file.parent} are shifted sideways (a tilted gantry).",
            rule=rule,
            remedy="resample the series to a straight one first; dcm2niix writes one, "
            "whose name has _Tilt.",
        )
