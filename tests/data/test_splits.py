"""Splits are a function of names and a seed, and reproduce that of the notebooks."""

import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.preflight import check_folder
from lungseg_jax.data.splits import check_split, leave_out, split_names
from lungseg_jax.runtime.errors import UserError

# numpy.random.RandomState(3).permutation(267)[:27], checked against the images that the
# notebooks show.
NOTEBOOK_TEST_IDS = [
    *(155, 64, 103, 209, 25, 213, 225, 154, 189, 143, 193, 50, 98, 264, 46, 16, 6, 235),
    *(227, 89, 261, 65, 239, 38, 3, 58, 14),
]
KAGGLE_NAMES = [f"ID_{i:04d}_Z_0100" for i in range(267)]


def split(names, validation=0.0, test=0.1, seed=3):
    return split_names(
        names, validation_fraction=validation, test_fraction=test, seed=seed
    )


def test_reproduces_the_split_of_the_notebooks():
    parts = split(KAGGLE_NAMES)
    assert [int(name[3:7]) for name in parts["test"]] == NOTEBOOK_TEST_IDS
    assert {key: len(names) for key, names in parts.items()} == {
        "train": 240,
        "validation": 0,
        "test": 27,
    }


@pytest.mark.parametrize("fraction,n", [(0.0, 0), (0.1, 27), (0.25, 67), (0.5, 134)])
def test_the_test_split_does_not_depend_on_the_validation_fraction(fraction, n):
    parts = split(KAGGLE_NAMES, validation=fraction)
    assert [int(name[3:7]) for name in parts["test"]] == NOTEBOOK_TEST_IDS
    assert len(parts["validation"]) == n  # ceil(267 * fraction)


def test_the_real_data_are_the_training_split(real_data):
    names = sorted(path.stem for path in (real_data / "2d_images").iterdir())
    ids = [int(name[3:7]) for name in names]
    assert ids == sorted(set(range(267)) - set(NOTEBOOK_TEST_IDS))


def test_only_training_slices_are_left_out():
    parts = {"train": list("abcd"), "validation": ["e"], "test": ["f"]}
    assert leave_out(parts, "bdef") == {
        **parts,
        "train": ["a", "c"],
        "left_out": ["b", "d"],
    }
    assert leave_out(parts, "ef") == parts == leave_out(parts, "")
    assert leave_out(parts, "abcd") == parts  # one has to train on something


def test_the_tutorial_copies_the_training_split(tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "tutorials" / "kaggle.md"
    (snippet,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    for folder in ("2d_images", "2d_masks"):
        Path("DIR", folder).mkdir(parents=True)
        for name in KAGGLE_NAMES:
            Path("DIR", folder, f"{name}.tif").touch()
    exec(snippet, {})
    for folder in ("2d_images", "2d_masks"):
        ids = {int(path.name[3:7]) for path in Path("kaggle240", folder).iterdir()}
        assert ids == {*range(267)} - {*NOTEBOOK_TEST_IDS}


@given(
    n=st.integers(3, 300),
    validation=st.integers(0, 450).map(lambda per_mille: per_mille / 1000),
    test=st.integers(0, 450).map(lambda per_mille: per_mille / 1000),
    seed=st.integers(0, 2**32 - 1),
)
def test_parts_are_disjoint_complete_and_independent_of_order(
    n, validation, test, seed
):
    names = [f"slice{i}" for i in range(n)]
    try:
        parts = split(names, validation, test, seed)
    except UserError:
        # Rounded up, the two fractions leave nothing of a handful of slices.
        assert n * (1 - validation - test) <= 2
        return
    assert tuple(parts) == ("train", "validation", "test") and parts["train"]
    assert sorted(sum(parts.values(), [])) == sorted(names)
    assert -1e-9 <= len(parts["test"]) - test * n < 1
    assert -1e-9 <= len(parts["validation"]) - validation * n < 1
    shuffled = np.random.default_rng(seed).permutation(names).tolist()
    assert split(shuffled, validation, test, seed) == parts


def test_the_seed_changes_the_split():
    assert split(KAGGLE_NAMES, seed=4)["test"] != split(KAGGLE_NAMES, seed=3)["test"]


@pytest.mark.parametrize(
    "n,fraction,expected",
    [
        (10, 0.1, 1),
        (11, 0.1, 2),  # rounded up, as scikit-learn does
        (270, 0.1, 27),  # 0.1 * 270 is 27.000000000000004
        (100, 0.07, 7),  # 0.07 * 100 is 7.000000000000001
        (100, 0.0, 0),
        (2, 0.0001, 1),
    ],
)
def test_sizes_of_the_test_split(n, fraction, expected):
    names = [f"{i:03d}" for i in range(n)]
    assert len(split(names, test=fraction)["test"]) == expected


@pytest.mark.parametrize(
    "n,validation,test",
    [(2, 0.1, 0.1), (1, 0.0, 0.1), (10, 0.5, 0.5), (0, 0.0, 0.0), (3, 0.4, 0.4)],
)
def test_refuses_an_empty_training_split(n, validation, test):
    with pytest.raises(UserError, match=f"{n} slices leave none to train on"):
        split([str(i) for i in range(n)], validation, test)


def patients_of(names, slices_each):
    return {name: f"P{i // slices_each}" for i, name in enumerate(sorted(names))}


@given(
    st.integers(20, 80),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 0.2]),
)
def test_each_patient_is_in_one_split(n, slices_each, seed, validation_fraction):
    names = [f"s{i:03}" for i in range(n)]
    patients = patients_of(names, slices_each)
    split = split_names(
        names,
        validation_fraction=validation_fraction,
        test_fraction=0.1,
        seed=seed,
        patients=patients,
    )
    assert sorted(sum(split.values(), [])) == names
    parts_by_patient = {}
    for part, part_names in split.items():
        for name in part_names:
            parts_by_patient.setdefault(patients[name], set()).add(part)
    assert all(len(parts) == 1 for parts in parts_by_patient.values())
    for part, fraction in (("test", 0.1), ("validation", validation_fraction)):
        expected = max(1, math.ceil(round(fraction * n, 9))) if fraction else 0
        assert expected <= len(split[part]) < expected + slices_each
    again = split_names(
        names[::-1],
        validation_fraction=validation_fraction,
        test_fraction=0.1,
        seed=seed,
        patients=patients,
    )
    assert again == split


def test_one_slice_per_patient_gives_the_plain_split():
    names = [f"s{i:03}" for i in range(40)]
    options = {"validation_fraction": 0.1, "test_fraction": 0.1, "seed": 3}
    plain = split_names(names, **options)
    assert split_names(names, **options, patients=patients_of(names, 1)) == plain
    assert split_names(names, **options, patients={}) == plain


def test_a_patient_with_many_slices_is_as_often_in_the_test_split_as_others():
    patients = {f"s{i:03}": f"P{max(0, i - 90)}" for i in range(100)}  # 91 of P0
    options = {"validation_fraction": 0.0, "test_fraction": 0.01, "patients": patients}
    times = sum(
        "s000" in split_names(list(patients), seed=seed, **options)["test"]
        for seed in range(200)
    )
    assert 8 <= times <= 34  # 20 expected, with a standard deviation of 4.2


@pytest.mark.parametrize("count", [1, 2])
def test_refuses_too_few_patients(count):
    names = [f"s{i}" for i in range(12)]
    with pytest.raises(UserError, match=f"too few patients .*: {count}") as e:
        split_names(
            names,
            validation_fraction=0.1,
            test_fraction=0.1,
            seed=0,
            patients=patients_of(names, 12 // count),
        )
    # With one patient, lower fractions do not help.
    assert ("lower" in e.value.remedy) == (count > 1)


@given(
    n=st.integers(4, 120),
    folds=st.integers(2, 4),
    slices_each=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_test_splits_of_all_folds_are_all_slices_once(n, folds, slices_each, seed):
    names = [f"s{i:03}" for i in range(n)]
    patients = patients_of(names, slices_each) if slices_each > 1 else None

    def of_fold(fold):
        return split_names(
            names,
            validation_fraction=0.1,
            test_fraction=1 / folds,
            seed=seed,
            fold=fold,
            patients=patients,
        )

    try:
        splits = [of_fold(fold) for fold in range(folds)]
    except UserError:
        # A fold in which no patient begins, or nothing left to train on.
        assert n < 4 * folds * slices_each
        return
    for split in splits:
        assert sorted(sum(split.values(), [])) == names
        assert abs(len(split["test"]) - n / folds) < slices_each
    assert sorted(sum((split["test"] for split in splits), [])) == names


# --- checked ---


def image(folder, name):
    return folder / "2d_images" / f"{name}.tif"


def copy_pixels(folder, a, b):
    """Give image b the pixels of a, in a different encoding; its mask stays."""
    pixels = cv2.imread(str(image(folder, a)), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(image(folder, b)), pixels)
    assert image(folder, a).read_bytes() != image(folder, b).read_bytes()


def test_refuses_equal_images_in_two_splits(pair_folder):
    folder = pair_folder("abcdefgh")
    for pair in ("ab", "cd", "ef", "eg"):
        copy_pixels(folder, *pair)
    checked = check_folder(folder)
    assert checked.duplicates == [["a", "b"], ["c", "d"], ["e", "f", "g"]]
    split = {"train": "acdeh", "validation": "f", "test": "bg"}
    with pytest.raises(UserError) as e:
        check_split(checked, split)
    lines = e.value.what.splitlines()
    assert lines[1:3] == [
        "  a (train) = b (test)",
        "  e (train) = f (validation) = g (test)",
    ]
    assert "all but one" in lines[4] and len(lines) == 5
    check_split(checked, {"train": "abcdefgh", "validation": "", "test": ""})


def test_blank_images_may_be_in_two_splits(pair_folder):
    folder = pair_folder("abc")
    for name in "ab":
        write_image(image(folder, name), np.full((40, 40), -1024, np.int16))
    checked = check_folder(folder)
    assert checked.duplicates == []
    check_split(checked, {"train": "ac", "validation": "", "test": "b"})


def test_refuses_a_training_split_without_lung(pair_folder):
    folder = pair_folder("abc")
    for name in "ab":
        write_image(folder / "2d_masks" / f"{name}.tif", np.zeros((40, 40), np.uint8))
    checked = check_folder(folder)
    assert [info.lung_pixels > 0 for info in checked.slices] == [False, False, True]
    with pytest.raises(UserError, match="masks of 2 training slices are all empty"):
        check_split(checked, {"train": "ab", "validation": "", "test": "c"})
    check_split(checked, {"train": "ac", "validation": "", "test": "b"})


def test_slices_in_no_part_are_no_leak(pair_folder):
    folder = pair_folder("abc")
    copy_pixels(folder, "a", "b")
    split = {"train": "a", "validation": "", "test": "c", "left_out": "b"}
    check_split(check_folder(folder), split)
