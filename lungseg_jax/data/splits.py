"""Training, validation and test splits: a function of slice names and a seed."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lungseg_jax.runtime.errors import UserError

Split = Mapping[str, Sequence[str]]  # names by "train", "validation", "test"


def split_names(
    names: Sequence[str],
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
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
      patients: patient by name of the slice. All slices of a patient are drawn together,
        so the test and the validation split have at least the requested number, and less
        than that without the last patient of each.

    Returns:
      Names by "train", "validation" and "test", in the order of the draw.

    Raises:
      UserError: none are left to train on.
    """
    names = sorted(names)
    n = len(names)
    n_test, n_validation = (
        # 0.1 * 270 is 27.000000000000004
        max(1, math.ceil(round(fraction * n, 9))) if fraction else 0
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
    if patients:
        return _split_by_patient(drawn, patients, n_validation, n_test)
    return {
        "train": drawn[n_test + n_validation :],
        "validation": drawn[n_test : n_test + n_validation],
        "test": drawn[:n_test],
    }


def _split_by_patient(
    drawn: Sequence[str], patients: Mapping[str, str], n_validation: int, n_test: int
) -> dict[str, list[str]]:
    names_by_patient: dict[str, list[str]] = {}
    for name in drawn:
        names_by_patient.setdefault(patients[name], []).append(name)
    # By one slice of each: by any of them, patients with many slices would come early.
    place = {name: i for i, name in enumerate(drawn)}
    patients_drawn = sorted(names_by_patient.values(), key=lambda n: place[min(n)])
    split = {"train": [], "validation": [], "test": []}
    for names in patients_drawn:
        if len(split["test"]) < n_test:
            split["test"] += names
        elif len(split["validation"]) < n_validation:
            split["validation"] += names
        else:
            split["train"] += names
    if not split["train"]:
        remedy = "add patients"
        if len(patients_drawn) > 1:
            remedy += (
                ", or lower config.data.test_fraction and "
                "config.data.validation_fraction"
            )
        raise UserError(
            f"too few patients for train, validation and test: {len(patients_drawn)}.",
            rule="all slices of a patient are in one split.",
            remedy=f"{remedy}.",
        )
    return split
