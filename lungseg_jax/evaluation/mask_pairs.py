"""Pairs of masks to compare: two files, two volumes, or two folders of either."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from lungseg_jax.data.conversion import CHANNEL
from lungseg_jax.data.io.dicom_files import is_dicom
from lungseg_jax.data.io.formats import (
    EITHER,
    SLICE,
    is_volume,
    open_volume,
    read_slice_array,
    read_slice_mask,
    split_suffix,
    suffixes,
)
from lungseg_jax.data.io.images import as_mask
from lungseg_jax.data.io.volumes import Volume, require_same_grid
from lungseg_jax.data.label_values import select_lung
from lungseg_jax.data.pairs import list_images, rename
from lungseg_jax.inference.prediction_task import COMPANION_ENDINGS
from lungseg_jax.runtime.errors import (
    UserError,
    bullet_list,
    combine_errors,
    pluralize,
)
from lungseg_jax.runtime.files import missing_path
from lungseg_jax.runtime.progress import say

# Name, truth and prediction of a slice, `[h w]` boolean.
NamedMasks = tuple[str, np.ndarray, np.ndarray]
PathPairs = Mapping[str, tuple[Path, Path]]  # truth and prediction by name


@dataclasses.dataclass(frozen=True)
class PairedMasks:
    """The slices of true masks and of the masks to score.

    Attributes:
      count: the number of slices.
      slices: reads them.
      is_volume: whether they are those of one volume, from feet to head.
      spacing_mm: between the slices, rows and columns of a volume; None if unknown.
      lung: the values of the truth that are lung; if there are none, it is a mask.
    """

    count: int
    slices: Iterator[NamedMasks]
    is_volume: bool = False
    spacing_mm: tuple[float, float, float] | None = None
    lung: Collection[int] = ()


@contextlib.contextmanager
def pair_masks(
    truth: Path, prediction: Path, *, lung: Collection[int] = ()
) -> Iterator[PairedMasks]:
    """Pair the slices of two files, two folders of files or two volumes.

    They can be read in the context.

    Args:
      truth: the true masks.
      prediction: the masks to score; in a folder, what `lungseg predict` writes beside
        its masks is skipped.
      lung: the values of the truth that are lung; if there are none, it is a mask.

    Raises:
      UserError: a path is missing, the two are of different kinds, or their names, sizes
        or geometries differ.
    """
    kind = _kind_of_both(truth, prediction)
    if kind == "a volume":
        with open_volume(truth) as true, open_volume(prediction) as predicted:
            require_same_grid(true, predicted)
            yield PairedMasks(
                true.count,
                _read_volumes(true, predicted, lung),
                is_volume=True,
                spacing_mm=true.spacing_mm,
                lung=lung,
            )
        return
    files = {truth.name: (truth, prediction)}
    if kind == "a folder":
        files = _pair_files(truth, prediction)
    yield PairedMasks(len(files), _read_files(files, lung), lung=lung)


def pair_volumes(truth: Path, prediction: Path) -> PathPairs:
    """Pair the volumes of two folders, at any depth, by their paths in these.

    Returns:
      Truth and prediction by name. It is empty if the truth is not a folder, or has no
      volumes.

    Raises:
      UserError: as `pair_masks`.
    """
    if _kind_of_both(truth, prediction) != "a folder":
        return {}
    truths = _find_volumes(truth)
    if not truths:
        return {}
    slices = list_images(truth, (SLICE, EITHER)).values()
    if not all(map(is_volume, slices)):
        raise _among_slices(truths.values())
    predictions = _find_volumes(prediction)
    return _pair_names(truth, prediction, truths, predictions)


def check_grids(pairs: PathPairs, *, progress: Callable[[], object]) -> None:
    """Refuse pairs of volumes that cannot be compared, all in one error.

    Args:
      pairs: of `pair_volumes`.
      progress: called after each pair.

    Raises:
      UserError: a volume cannot be read, or its size or geometry is another one.
    """
    faults, has_geometry = [], set()
    for paths in pairs.values():
        try:
            with open_volume(paths[0]) as true, open_volume(paths[1]) as predicted:
                require_same_grid(true, predicted)
                has_geometry.add(true.spacing_mm is not None)
        except UserError as e:
            faults.append(e)
        progress()
    if faults:
        raise combine_errors(faults, f"{len(pairs)} pairs of volumes")
    if len(has_geometry) > 1:
        raise UserError(
            "some volumes are arrays, without a spacing, and others have one.",
            rule="all distances are in mm, or all in pixels.",
            remedy="compare the arrays by themselves.",
        )


def _kind_of_both(truth: Path, prediction: Path) -> str:
    for path in (truth, prediction):
        if not path.exists():
            raise missing_path(path)
    kinds = [_kind(path) for path in (truth, prediction)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"{truth} is {kinds[0]} and {prediction} is {kinds[1]}.",
            rule="two files, two folders or two volumes.",
            remedy="name the masks of the same scan, or two folders.",
        )
    return kinds[0]


def _kind(path: Path) -> str:
    if is_volume(path) or is_dicom(path):
        return "a volume"
    return "a folder" if path.is_dir() else "a file"


def _find_volumes(folder: Path) -> dict[str, Path]:
    """Return the volumes at any depth in a folder, by their paths without suffix."""
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(place, name) for name in folders):
            if path.is_symlink():  # it may lead in a circle
                say(f"skipped: {path}: link to a folder")
        for path in (Path(place, name) for name in sorted(files)):
            if path.name.startswith(".") or not is_volume(path):
                continue
            stem = split_suffix(path)[0]
            stem = stem.removesuffix(CHANNEL) or stem
            name = str(path.relative_to(folder).with_name(stem))
            if name in found:
                raise UserError(
                    f"{found[name]} and {path} have the same name.",
                    rule="one volume with a name, whatever its format.",
                    remedy="rename one of them, or move it.",
                )
            found[name] = path
    return found


def _pair_files(truth: Path, prediction: Path) -> PathPairs:
    """Pair the files of two folders by name."""
    truths = list_images(truth, (SLICE, EITHER))
    predictions = list_images(prediction, (SLICE, EITHER))
    _refuse_volumes(truth, prediction)
    if not truths:
        raise UserError(
            f"the folder {truth} has no masks.",
            rule=f"files that end in {', '.join(suffixes())}.",
        )
    return _pair_names(truth, prediction, truths, predictions)


def _pair_names(
    truth: Path,
    prediction: Path,
    truths: Mapping[str, Path],
    predictions: Mapping[str, Path],
) -> PathPairs:
    """Pair what was found in two folders, without what predict writes beside masks."""
    predictions, repeated = rename(
        {
            name: path
            for name, path in predictions.items()
            if name in truths or not name.endswith(COMPANION_ENDINGS)
        },
        truths,
    )
    if repeated:
        raise combine_errors([*repeated.values()], str(prediction))
    unpaired = [str(truths[n]) for n in sorted(truths.keys() - predictions.keys())]
    unpaired += [
        str(predictions[n]) for n in sorted(predictions.keys() - truths.keys())
    ]
    if unpaired:
        raise UserError(
            f"{pluralize(len(unpaired), 'file')} in {truth} and {prediction} without a "
            f"partner:\n{bullet_list(unpaired)}",
            rule="each true mask has exactly one mask of the same name, and vice versa.",
            remedy="rename the files, or move those without a partner out.",
        )
    return {name: (truths[name], predictions[name]) for name in sorted(truths)}


def _refuse_volumes(*folders: Path) -> None:
    volumes = [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and is_volume(path)
    ]
    if volumes:
        raise _among_slices(volumes)


def _among_slices(volumes: Collection[Path]) -> UserError:
    return UserError(
        f"{pluralize(len(volumes), 'volume')} among single slices:\n"
        f"{bullet_list([str(path) for path in volumes])}",
        rule="both folders hold single slices, or both hold volumes.",
        remedy="move the volumes out.",
    )


def _read_files(files: PathPairs, lung: Collection[int]) -> Iterator[NamedMasks]:
    for name, (truth_path, path) in files.items():
        if lung:
            truth = select_lung(read_slice_array(truth_path), lung, str(truth_path))
        else:
            truth = read_slice_mask(truth_path) > 0
        prediction = read_slice_mask(path) > 0
        if truth.shape != prediction.shape:
            raise UserError(
                f"{truth_path} has {truth.shape[1]} x {truth.shape[0]} pixels and "
                f"{path} {prediction.shape[1]} x {prediction.shape[0]}.",
                rule="both masks of a slice have its size.",
                remedy="resample one of them to the size of the other.",
            )
        yield name, truth, prediction


def _read_volumes(
    truth: Volume, prediction: Volume, lung: Collection[int]
) -> Iterator[NamedMasks]:
    for k in range(truth.count):
        where = f"slice {k} of"
        if lung:
            true = select_lung(truth.read(k), lung, f"{where} {truth.name}")
        else:
            true = as_mask(truth.read(k), f"{where} {truth.name}") > 0
        predicted = as_mask(prediction.read(k), f"{where} {prediction.name}") > 0
        yield str(k), true, predicted
