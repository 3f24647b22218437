"""Training, validation and test splits: drawn by slice names and a seed, and checked."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lungseg_jax.data.preflight import CheckedFolder
from lungseg_jax.runtime.errors import UserError, combine_errors, pluralize

PARTS = ("train", "validation", "test")
Split = Mapping[str, Sequence[str]]  # names by part; others may be "left_out"


def split_names(
    names: Sequence[str],
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    fold: int = 0,
    patients: Mapping[str, str] | None = None,
) -> dict[str, list[str]]:
    """Draw the test split, then the validation split; the rest is for training.

    Slices are drawn by `RandomState(seed).permutation` of the sorted names, and the test
    split has ceil(test_fraction * n) of them, as in scikit-learn's `train_test_split`. For
    the 267 slices of the Kaggle set, seed 3 and a tenth, the test split is that of the
    notebooks for any validation fraction. A fraction above 0 gives at least one.

    Args:
      names: of the slices, in any order.
      validation_fraction, test_fraction: of all slices.
      seed: of the draw.
      fold: which part of the draw is the test split, from 0 on. Parts do not overlap, and
        with a test fraction of 1/k, k of them make up the whole. The validation split
        follows in the draw, whose end is joined to its beginning.
      patients: patient by name of the slice. All slices of a patient are drawn together,
        so a split may have more slices than requested, up to those of its last patient,
        and with a fold above 0 also fewer.

    Returns:
      Names by "train", "validation" and "test", in the order of the draw.

    Raises:
      UserError: none are left to train on, or none are in the fold.
    """
    names = sorted(names)
    n = len(names)
    n_test, n_validation = (
        max(1, _ceil(fraction * n)) if fraction else 0
        for fraction in (test_fraction, validation_fraction)
    )
    if n_test + n_validation >= n:
        raise UserError(
            f"{n} slices leave none to train on after {n_test} for test and "
            f"{n_validation} for validation.",
            rule="the training split has at least one slice.",
            remedy="add slices, or lower config.data.test_fraction and "
            "config.data.validation_fraction.",
        )
    # RandomState, not Generator: its stream is frozen, and yields the original split.
    drawn = [names[i] for i in np.random.RandomState(seed).permutation(n)]
    groups = _group(drawn, patients) if patients else [[name] for name in drawn]
    if test_fraction:
        groups, n_test = _bring_forward(groups, fold, test_fraction * n)
    split = {part: [] for part in PARTS}
    for group in groups:
        if len(split["test"]) < n_test:
            split["test"] += group
        elif len(split["validation"]) < n_validation:
            split["validation"] += group
        else:
            split["train"] += group
    if not split["train"]:
        remedy = "add patients"
        if len(groups) > 1:
            remedy += (
                ", or lower config.data.test_fraction and "
                "config.data.validation_fraction"
            )
        raise UserError(
            f"too few patients for train, validation and test: {len(groups)}.",
            rule="all slices of a patient are in one split.",
            remedy=f"{remedy}.",
        )
    return split


def leave_out(split: Split, names: Iterable[str]) -> dict[str, list[str]]:
    """Move the training slices among `names` to a part "left_out".

    Nothing changes if that would leave out none of them, or all.
    """
    names = set(names)
    left_out = [name for name in split["train"] if name in names]
    kept = [name for name in split["train"] if name not in names]
    if not left_out or not kept:
        return dict(split)
    return {**split, "train": kept, "left_out": left_out}


def check_split(checked: CheckedFolder, split: Split) -> None:
    """Refuse a split that would score a network on its own training images.

    Args:
      checked: the slices.
      split: of their names.

    Raises:
      UserError: equal images are in two of them, all in one table, or no training slice
        has lung.
    """
    part_of = {name: part for part in PARTS for name in split[part]}
    leaks = []
    for group in checked.duplicates:
        names = [name for name in group if name in part_of]
        if len({part_of[name] for name in names}) > 1:
            leaks.append(
                UserError(
                    " = ".join(f"{name} ({part_of[name]})" for name in names),
                    rule="no image is in two of train, validation and test.",
                    remedy="remove all but one of each row, image and mask.",
                )
            )
    if leaks:
        raise combine_errors(leaks, "the split: equal images under several names")
    train = set(split["train"])
    if not any(info.lung_pixels for info in checked.slices if info.name in train):
        raise UserError(
            f"the masks of {pluralize(len(train), 'training slice')} are all empty.",
            rule="at least one training slice has lung.",
            remedy="add slices with lung, or check how the masks were written.",
        )


def _group(drawn: Sequence[str], patients: Mapping[str, str]) -> list[list[str]]:
    """Return the slices of each patient, in the order in which patients are drawn."""
    by_patient: dict[str, list[str]] = {}
    for name in drawn:
        by_patient.setdefault(patients[name], []).append(name)
    # By one slice of each: by any of them, patients with many slices would come early.
    place = {name: i for i, name in enumerate(drawn)}
    return sorted(by_patient.values(), key=lambda names: place[min(names)])


def _bring_forward(
    groups: list[list[str]], fold: int, size: float
) -> tuple[list[list[str]], int]:
    """Rotate the draw so that it begins with a fold, and return the slices in the fold.

    A group belongs to the fold in which its first slice is.

    Args:
      groups: of slices, in the order of the draw.
      fold: its number, from 0 on.
      size: slices of a fold, which need not be an integer.
    """
    starts = np.cumsum([0, *map(len, groups)])
    bounds = [_ceil(k * size) for k in (fold, fold + 1)]
    first, end = np.searchsorted(starts[:-1], bounds)
    if first == end:
        kind = "slices" if all(len(group) == 1 for group in groups) else "patients"
        raise UserError(
            f"fold {fold} of the test splits has none of the {len(groups)} {kind}.",
            rule=f"each fold begins at least one of the {kind}.",
            remedy="fewer folds, with a larger config.data.test_fraction or a lower "
            "--folds; or add slices.",
        )
    return groups[first:] + groups[:first], int(starts[end] - starts[first])


def _ceil(number: float) -> int:
    return math.ceil(round(number, 9))  # 0.1 * 270 is 27.000000000000004
