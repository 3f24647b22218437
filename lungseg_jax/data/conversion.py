"""Data folders from labelled volumes: every axial slice becomes a pair of files."""

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from lungseg_jax.data.data_folder import IMAGES, MASKS
from lungseg_jax.data.intensity import (
    DOMAINS,
    Values,
    detect_intensity,
    pool_values,
    values_of,
)
from lungseg_jax.data.io.dicom_files import is_dicom
from lungseg_jax.data.io.formats import (
    EITHER,
    VOLUME,
    kind_of,
    open_volume,
    split_suffix,
    suffixes,
)
from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.io.unsupported import and_more, say_skipped
from lungseg_jax.data.io.volumes import require_same_grid
from lungseg_jax.data.label_values import select_lung
from lungseg_jax.data.metadata import COLUMNS, TABLE
from lungseg_jax.data.pairs import rename
from lungseg_jax.runtime.errors import (
    UserError,
    bullet_list,
    combine_errors,
    pluralize,
)
from lungseg_jax.runtime.files import atomic_folder, csv_writer, missing_path
from lungseg_jax.runtime.progress import say

CHANNEL = "_0000"  # nnU-Net ends the names of images, but not of labels, with it


@dataclasses.dataclass(frozen=True)
class LabelledVolume:
    """A scan, a volume or a DICOM series, with its label, a volume; `case` names it."""

    case: str
    image: Path
    label: Path


def find_labelled_volumes(image: Path, label: Path) -> list[LabelledVolume]:
    """Pair scans with labels.

    Args:
      image: a volume, the folder of a DICOM series, or a folder of these.
      label: a volume, or a folder of volumes named like the images without `_0000`.

    Raises:
      UserError: a path is missing or of another kind, or has no partner.
    """
    for path in (image, label):
        if not path.exists():
            raise missing_path(path)
    formats = ", ".join(suffixes(VOLUME, EITHER))
    if not label.is_dir():
        for path in (image, label):
            if not _can_be_opened(path):
                raise UserError(
                    f"{path} is not a volume.",
                    rule=f"DICOM, or one of {formats}.",
                    remedy=f"put slices into {IMAGES}/ and {MASKS}/ as they are.",
                )
        return [LabelledVolume(_case(image), image, label)]
    images, labels = _volumes(image), _volumes(label)
    labels, repeated = rename(labels, images)
    if repeated:
        raise combine_errors([*repeated.values()], str(label))
    unlabelled = [images[case] for case in sorted(images.keys() - labels.keys())]
    unused = [labels[case] for case in sorted(labels.keys() - images.keys())]
    if not images and not labels:
        raise UserError(
            f"{image} has no volumes.",
            rule=f"DICOM series, or files that end in {formats}.",
            remedy="name the folders that hold them, such as imagesTr/ and labelsTr/.",
        )
    if unlabelled or not images:
        unpaired = list(map(str, unlabelled + unused))
        raise UserError(
            f"{pluralize(len(unpaired), 'file')} without a partner:\n"
            f"{bullet_list(unpaired)}",
            rule=f"IMAGE has CASE.nii.gz or CASE{CHANNEL}.nii.gz, LABEL has CASE.nii.gz.",
            remedy="rename the files, or move those without a partner out.",
        )
    if unused:  # as where the labels of all parts of a dataset are in one folder
        say(f"skipped: {unused[0]}{and_more(unused)}: no image of that name")
    return [LabelledVolume(case, images[case], labels[case]) for case in sorted(images)]


def convert_volumes(
    volumes: Sequence[LabelledVolume],
    folder: Path,
    *,
    lung: Collection[int] = (),
    every: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> tuple[int, list[str]]:
    """Write a data folder, with slices.csv, that `lungseg train` takes as it is.

    The patient of a slice is its case, so that no patient is in two splits. The spacing
    of the slices is known if all volumes have one.

    Args:
      volumes: scans in Hounsfield units, with their labels.
      folder: must not exist; it appears when it is complete.
      lung: the values of a label that are lung; all but 0 if there are none.
      every: take every such slice.
      progress: called after each volume.

    Returns:
      The number of slices, and the cases without lung in theirs.

    Raises:
      UserError: a volume cannot be read, has other units or an implausible spacing, or
        does not fit its label; or no label has lung.
    """
    rows: list[dict[str, str]] = []
    without_lung = []
    with atomic_folder(folder) as temporary:
        for name in (IMAGES, MASKS):
            (temporary / name).mkdir()
        for labelled in volumes:
            new, has_lung = _convert(labelled, temporary, set(lung), every)
            rows += new
            without_lung += [] if has_lung else [labelled.case]
            progress()
        if len(without_lung) == len(volumes):
            raise _no_lung(volumes, lung, every)
        # An array has no spacing, and a column is one of all slices.
        columns = [name for name in COLUMNS if all(name in row for row in rows)]
        with csv_writer(temporary / TABLE, columns) as writer:
            writer.writerows({name: row[name] for name in columns} for row in rows)
    return len(rows), without_lung


def _convert(
    labelled: LabelledVolume, folder: Path, lung: set[int], every: int
) -> tuple[list[dict[str, str]], bool]:
    """Write the slices of a volume; return their rows, and whether any has lung."""
    rows, values, has_lung = [], [], False
    with open_volume(labelled.image) as image, open_volume(labelled.label) as label:
        require_same_grid(image, label)
        digits = len(str(image.count - 1))
        for k in range(0, image.count, every):
            name = f"{labelled.case}_z{k:0{digits}}"
            plane = image.read(k)
            is_lung = select_lung(label.read(k), lung, f"slice {k} of {label.name}")
            has_lung |= bool(is_lung.any())
            values.append(values_of([plane]))
            hounsfield = np.rint(plane).clip(-(2**15), 2**15 - 1).astype(np.int16)
            write_image(folder / IMAGES / f"{name}.tif", hounsfield)
            mask = is_lung.astype(np.uint8) * np.uint8(255)
            write_image(folder / MASKS / f"{name}.tif", mask)
            row = {"name": name, "patient": labelled.case}
            if image.spacing_mm:
                _, row["row_mm"], row["column_mm"] = map(
                    "{:.6g}".format, image.spacing_mm
                )
            rows.append(row)
    # Of all slices together: one of them may be full of bone.
    _require_hounsfield(labelled.image, pool_values(values))
    return rows, has_lung


def _no_lung(
    volumes: Sequence[LabelledVolume], lung: Collection[int], every: int
) -> UserError:
    remedy = "name other values with --lung" if lung else "check the labels"
    if every > 1:
        remedy += ", or take more slices with a lower --every"
    return UserError(
        f"{pluralize(len(volumes), 'label')} without lung:\n"
        f"{bullet_list([str(volume.label) for volume in volumes])}",
        rule=f"lung has the values {', '.join(map(str, sorted(lung)))}."
        if lung
        else "all values but 0 are lung.",
        remedy=f"{remedy}.",
    )


def _require_hounsfield(path: Path, values: Values) -> None:
    domain = detect_intensity(values)
    if domain not in ("HU", "unknown"):
        raise UserError(
            f"{path} has {DOMAINS[domain]} ({values.low:g} to {values.high:g}).",
            rule="scans are in Hounsfield units.",
            remedy="name the original CT scan, or add the rescale intercept (often -1024) "
            "that such values lack.",
        )


def _volumes(folder: Path) -> dict[str, Path]:
    """Return the volumes and DICOM series in a folder, by case."""
    if not folder.is_dir() or is_dicom(folder):
        raise UserError(
            f"{folder} is not a folder of volumes, and the other one is.",
            rule="IMAGE and LABEL are two volumes, or two folders of volumes.",
        )
    found: dict[str, Path] = {}
    others = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not _can_be_opened(path):
            others.append(path)
        else:
            case = _case(path)
            if case in found:
                raise UserError(
                    f"{found[case]} and {path} are both the case {case}.",
                    rule="one volume for a case.",
                    remedy="rename one of them, or move it.",
                )
            found[case] = path
    say_skipped(others)
    for path in others:
        if path.is_dir():
            say(f"skipped: {path}: not the folder of a DICOM series")
    return found


def _can_be_opened(path: Path) -> bool:
    """Whether a path may be a volume, by its name; NumPy slices are volumes of one."""
    has_suffix = kind_of(path) in (VOLUME, EITHER) and not path.is_dir()
    return has_suffix or is_dicom(path)


def _case(path: Path) -> str:
    """Return the name of a case.

    Raises:
      UserError: its slices would be hidden files, or not be found in slices.csv.
    """
    # Not resolved: a link has a name of its own.
    stem, _ = split_suffix(Path(os.path.abspath(path)))
    case = stem.removesuffix(CHANNEL)
    if not re.match(r"[^.\s]", case):
        raise UserError(
            f"the case of {path} would be {case!r}.",
            rule="a name that starts neither with a dot nor with a space.",
            remedy="rename it.",
        )
    return case
