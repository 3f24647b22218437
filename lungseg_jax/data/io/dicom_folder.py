"""The DICOM files of a folder: the slices of each series, and what is not a slice."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from lungseg_jax.data.io.dicom_files import PREAMBLE, is_dicom_file, may_be_dicom
from lungseg_jax.data.io.dicom_slice import DicomSlice
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, bullet_list, combine_errors, pluralize

SERIES, DESCRIPTION = "0020|000e", "0008|103e"
NAMES = (".dcm", ".ima")  # suffixes that some programs add
STACK = 3  # the least slices of a coronal or sagittal volume; fewer are localizers
# Element (0002,0002), near the start of a file, states its class; CT classes start alike.
_CLASS, _CLASSES, _CT = b"\x02\x00\x02\x00UI", b"1.2.840.10008.", b"5.1.4.1.1.2"
_NOT_IMAGES = {  # by the start of their class
    b"1.3.10": "index of a disc (DICOMDIR)",
    b"5.1.4.1.1.11.": "presentation state",
    b"5.1.4.1.1.481.": "radiotherapy plan or structure set",
    b"5.1.4.1.1.66.": "registration or segmentation",
    b"5.1.4.1.1.88.": "report (SR)",
    b"5.1.4.1.1.104.": "document",
}


@dataclasses.dataclass(frozen=True)
class DicomFolder:
    """The DICOM files that are directly in a folder.

    Attributes:
      path: the folder.
      series: the slices of each series, by its UID.
      others: why a file is not among them, by file.
    """

    path: Path
    series: Mapping[str, Sequence[DicomSlice]]
    others: Mapping[Path, str]

    def choose(self, uid: str) -> list[DicomSlice]:
        """Return the slices of the series with this UID, or with "" of the only one.

        Raises:
          UserError: no series has this UID, or the UID is "" and there are several.
        """
        if not self.series:
            others = bullet_list(_describe(self.others))
            raise UserError(
                f"{self.path} has no CT slices among its files"
                + (f":\n{others}" if others else "."),
                rule="the axial slices of a CT scan.",
                remedy="name the folder with the slices, perhaps one level further down.",
            )
        if uid and uid not in self.series:
            raise UserError(
                f"{self.path} has no series {uid}.\n{self._list()}",
                rule="--series is one of those above.",
            )
        if len(self.series) > 1 and not uid:
            raise UserError(
                f"{self.path} has {len(self.series)} series:\n{self._list()}",
                rule="one series per mask.",
                remedy="move each into a folder of its own, or name one of them to "
                "lungseg predict with --series=UID.",
            )
        return list(self.series[uid or next(iter(self.series))])

    def say_skipped(self) -> None:
        """Print what is left out, and why."""
        for line in _describe(self.others):
            progress.say(f"skipped: {line}")

    def _list(self) -> str:
        rows = []
        for uid, slices in self.series.items():
            description = slices[0].get_tag(DESCRIPTION) or "no description"
            rows.append(f"{uid}  {pluralize(len(slices), 'slice')}  {description}")
        return bullet_list(rows)


def read_folder(folder: Path, *, suffixes: Sequence[str] = ()) -> DicomFolder:
    """Read the headers of all DICOM files in a folder.

    Args:
      folder: its files, but for hidden ones and texts, are DICOM or accounted for.
      suffixes: of images in other formats, in lower case.

    Raises:
      UserError: a file cannot be read, or a CT file is damaged, or has a name that is not
        UTF-8.
    """
    series: dict[str, list[DicomSlice]] = {}
    others, faults = {}, []
    for file in sorted(folder.iterdir()):
        if not _is_expected(file, suffixes):
            continue
        try:
            found = _read(file)
        except UserError as e:
            faults.append(e)
            continue
        if isinstance(found, str):
            others[file] = found
        else:
            series.setdefault(found[0].get_tag(SERIES) or "none", []).extend(found)
    if faults:
        raise combine_errors(faults, str(folder))
    for uid in [uid for uid, slices in series.items() if _is_localizer(slices)]:
        for dicom_slice in series.pop(uid):
            others[dicom_slice.file] = "coronal or sagittal localizer"
    return DicomFolder(folder, series, others)


def read_file(file: Path) -> Sequence[DicomSlice]:
    """Read the header of a single slice, or those of the frames of a scan.

    Raises:
      UserError: the file is damaged, or shows something else than axial CT slices.
    """
    found = _read(file)
    if not isinstance(found, str):
        if not _is_localizer(found):
            return found
        found = "coronal or sagittal image"
    raise UserError(
        f"{file} is not an axial CT slice: {found}.",
        rule="an axial slice of a CT scan.",
        remedy="name a slice, or the folder of a series.",
    )


def _is_expected(file: Path, suffixes: Sequence[str]) -> bool:
    """Whether a path in a folder of DICOM files should be one of them."""
    if is_dicom_file(file):
        return True
    is_file = file.is_file() or not file.exists()  # or a dead link
    is_other_image = file.name.lower().endswith(tuple(suffixes))
    return is_file and may_be_dicom(file) and not is_other_image


def _read(file: Path) -> Sequence[DicomSlice] | str:
    """Return the slices of a file, or say what it is if it has none of a CT scan."""
    start = _read_start(file)
    try:
        dicom_slice = DicomSlice(file)  # reads files without a preamble, too
    except UserError:
        if not is_dicom_file(file) and not _seems_cut(file, start):
            return "not DICOM"
        if reason := _reason_by_class(start):
            return reason
        raise
    if reason := dicom_slice.other_content():
        return reason
    if dicom_slice.is_enhanced:
        from lungseg_jax.data.io.dicom_frame import split_frames  # takes 0.2 s

        return split_frames(dicom_slice)
    return [dicom_slice]


def _read_start(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            start, why = opened.read(1024), "is empty"
    except OSError as e:
        start, why = b"", f"cannot be read: {e.strerror or e}"
    if start:
        return start
    if file.is_symlink() and not file.exists():
        why = "is a link to a file that does not exist"
    raise UserError(
        f"{file} {why}.",
        rule="every file of a series is there, and intact.",
        remedy="copy it again, or move it out of the folder.",
    )


def _seems_cut(file: Path, start: bytes) -> bool:
    """Whether a file without magic bytes has the name or the zeros of a DICOM file."""
    return file.suffix.lower() in NAMES or not start[:PREAMBLE].strip(b"\0")


def _is_localizer(slices: Sequence[DicomSlice]) -> bool:
    return len(slices) < STACK and not any(s.is_axial for s in slices)


def _describe(others: Mapping[Path, str]) -> list[str]:
    """Return a line for each reason, with the first of its files."""
    by_reason: dict[str, list[Path]] = {}
    for file, reason in others.items():
        by_reason.setdefault(reason, []).append(file)
    return [
        f"{files[0]}{f' and {len(files) - 1} more' if files[1:] else ''}: {reason}"
        for reason, files in by_reason.items()
    ]


def _reason_by_class(start: bytes) -> str:
    """Say why a file without a readable image, which starts so, is not a slice.

    "" if its class is that of a CT image or unknown: then it is damaged.
    """
    stated = start.partition(_CLASS)[2][2:].removeprefix(_CLASSES)
    if not stated or stated.startswith(_CT):
        return ""
    reasons = (r for uid, r in _NOT_IMAGES.items() if stated.startswith(uid))
    return next(reasons, "not an image")
