"""Data folders from labelled volumes: every axial slice becomes a pair of files."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from lungseg_jax.data.intensity import require_intensity, values_of
from lungseg_jax.data.io.formats import (
    EITHER,
    VOLUME,
    is_dicom,
    is_volume,
    kind_of,
    open_volume,
    split_suffix,
)
from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.io.volumes import Volume, require_same_grid
from lungseg_jax.data.metadata import COLUMNS, TABLE
from lungseg_jax.data.pairs import IMAGES, MASKS
from lungseg_jax.runtime.errors import UserError, bullet_list, pluralize
from lungseg_jax.runtime.files import atomic_folder, csv_writer

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
            raise UserError(f"{path} does not exist.")
    if not label.is_dir():
        for path in (image, label):
            if not is_dicom(path) and (path.is_dir() or not is_volume(path)):
                raise UserError(f"{path} is not a volume.")
        return [LabelledVolume(_case(image), image, label)]
    images, labels = _volumes(image), _volumes(label)
    unpaired = [str(images[case]) for case in sorted(images.keys() - labels.keys())]
    unpaired += [str(labels[case]) for case in sorted(labels.keys() - images.keys())]
    if not images and not labels:
        raise UserError(f"{image} has no volumes.")
    if unpaired:
        raise UserError(
            f"{pluralize(len(unpaired), 'file')} without a partner:\n"
            f"{bullet_list(unpaired)}",
            rule=f"IMAGE has CASE.nii.gz or CASE{CHANNEL}.nii.gz, LABEL has CASE.nii.gz.",
        )
    return [LabelledVolume(case, images[case], labels[case]) for case in sorted(images)]


def convert_volumes(
    volumes: Sequence[LabelledVolume],
    folder: Path,
    *,
    lung: Collection[int] = (),
    every: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> int:
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
      The number of slices.

    Raises:
      UserError: a volume cannot be read, has other units, or does not fit its label.
    """
    rows: list[dict[str, str]] = []
    with atomic_folder(folder) as temporary:
        for name in (IMAGES, MASKS):
            (temporary / name).mkdir()
        for labelled in volumes:
            rows += _convert(labelled, temporary, set(lung), every)
            progress()
        # An array has no spacing, and a column is one of all slices.
        columns = [name for name in COLUMNS if all(name in row for row in rows)]
        with csv_writer(temporary / TABLE, columns) as writer:
            writer.writerows({name: row[name] for name in columns} for row in rows)
    return len(rows)


def _convert(
    labelled: LabelledVolume, folder: Path, lung: set[int], every: int
) -> list[dict[str, str]]:
    rows, found = [], False
    with open_volume(labelled.image) as image, open_volume(labelled.label) as label:
        require_same_grid(image, label)
        digits = len(str(image.count - 1))
        for k in range(0, image.count, every):
            name = f"{labelled.case}_z{k:0{digits}}"
            mask = _mask(label, k, lung)
            found |= bool(mask.any())
            write_image(folder / IMAGES / f"{name}.tif", _hounsfield(image, k))
            write_image(folder / MASKS / f"{name}.tif", mask)
            row = {"name": name, "patient": labelled.case}
            if image.spacing_mm:
                _, row["row_mm"], row["column_mm"] = map(
                    "{:.6g}".format, image.spacing_mm
                )
            rows.append(row)
    if not found:
        raise UserError(
            f"{labelled.label} has no lung.",
            rule=f"the values {sorted(lung)} are lung."
            if lung
            else "all but 0 are lung.",
            remedy="name the values of the lung with --lung.",
        )
    return rows


def _hounsfield(volume: Volume, k: int) -> np.ndarray:
    plane = volume.read(k)
    require_intensity(values_of([plane]), "HU", f"slice {k} of {volume.name}")
    return np.rint(plane).clip(-(2**15), 2**15 - 1).astype(np.int16)


def _mask(volume: Volume, k: int, lung: set[int]) -> np.ndarray:
    plane = volume.read(k)
    if not np.array_equal(plane, np.rint(plane)):
        raise UserError(
            f"slice {k} of {volume.name} has values that are not whole numbers.",
            rule="a label numbers what each voxel shows.",
            remedy="name the label volume second.",
        )
    is_lung = np.isin(plane, list(lung)) if lung else plane != 0
    return is_lung.astype(np.uint8) * np.uint8(255)


def _volumes(folder: Path) -> dict[str, Path]:
    """Return the volumes and DICOM series in a folder, by case."""
    if not folder.is_dir() or is_dicom(folder):
        raise UserError(f"{folder} is not a folder of volumes, and the other one is.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if kind_of(path) in (VOLUME, EITHER) or path.is_dir() and is_dicom(path):
            case = _case(path)
            if case in found:
                raise UserError(
                    f"{found[case]} and {path} are both the case {case}.",
                    rule="one volume for a case.",
                    remedy="rename one of them, or move it.",
                )
            found[case] = path
    return found


def _case(path: Path) -> str:
    stem, _ = split_suffix(path)
    return (stem or path.resolve().name).removesuffix(CHANNEL)
