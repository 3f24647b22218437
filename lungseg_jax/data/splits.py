"""Which slices train, which choose, which judge: a function of names and a seed."""

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
    """Names by split, in drawing order: test is drawn first, then validation.

    The draw is `RandomState(seed).permutation` over the sorted names and the test set has
    ceil(test_fraction * n) of them: what scikit-learn's `train_test_split` does. With the
    267 slices of the Kaggle set, seed 3 and a tenth, the test set is that of the
    notebooks, whatever the share of validation. A fraction above 0 gives at least one.

    With `patients`, by name of the slice, a slice takes all others of its patient along:
    a split then has that many slices or a few more.

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
    # RandomState, not Generator: its stream is frozen, and the original split is in it.
    drawn = [names[i] for i in np.random.RandomState(seed).permutation(n)]
    if patients:
        return _by_patient(drawn, patients, n_validation, n_test)
    return {
        "train": drawn[n_test + n_validation :],
        "validation": drawn[n_test : n_test + n_validation],
        "test": drawn[:n_test],
    }


def _by_patient(
    drawn: Sequence[str], patients: Mapping[str, str], n_validation: int, n_test: int
) -> dict[str, list[str]]:
    slices: dict[str, list[str]] = {}
    for name in drawn:
        slices.setdefault(patients[name], []).append(name)
    split = {"train": [], "validation": [], "test": []}
    for names in slices.values():
        if len(split["test"]) < n_test:
            split["test"] += names
        elif len(split["validation"]) < n_validation:
            split["validation"] += names
        else:
            split["train"] += names
    if not split["train"] or len(split["validation"]) < n_validation:
        raise UserError(
            f"{len(slices)} patients are too few for train, validation and test.",
            rule="all slices of a patient are in one split.",
            remedy="add patients, or lower config.data.test_fraction and "
            "config.data.validation_fraction.",
        )
    return split
