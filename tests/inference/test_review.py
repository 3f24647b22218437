"""Which slices of a volume are flagged because of its anatomy."""

import numpy as np
import pytest

from lungseg_jax.data.phantom.volume import make_volume
from lungseg_jax.inference import review
from lungseg_jax.inference.sides import LEFT, RIGHT, label_sides


def lungs(count: int = 20) -> np.ndarray:
    """Draw two blocks that are in all slices but the first and the last two."""
    mask = np.zeros((count, 40, 60), np.uint8)
    mask[2:-2, 8:32, 6:26] = mask[2:-2, 8:32, 34:54] = 1
    return mask


def found(flags: np.ndarray) -> list[int]:
    return np.flatnonzero(flags).tolist()


def test_lung_that_is_missing_or_added_in_one_slice_is_unlike_its_neighbors():
    mask = lungs()
    assert not review.unlike_neighbors(mask).any()
    mask[7, :, :30] = 0
    assert 7 in found(review.unlike_neighbors(mask))
    mask = lungs()
    mask[12, 34:, 20:40] = 1
    assert found(review.unlike_neighbors(mask)) == [12]


def test_the_change_is_a_share_of_the_larger_area():
    for added, is_unlike in ((100, False), (110, True)):
        mask = lungs()  # of 960 pixels
        mask[7, 33:38].reshape(-1)[:added] = 1
        assert review.unlike_neighbors(mask)[7] == is_unlike
    for lost, is_unlike in ((90, False), (100, True)):
        mask = lungs()
        mask[7, 8 : 8 + lost // 10, 10:20] = 0
        assert review.unlike_neighbors(mask)[7] == is_unlike


def test_a_few_pixels_at_a_tip_may_change():
    mask = lungs()
    mask[16:] = 0
    mask[16:18, 10:13, 10:13] = 1
    mask[17, 9, 10:13] = 1
    assert not review.unlike_neighbors(mask).any()


def test_lung_that_grows_or_shrinks_fast_is_like_its_neighbors():
    mask = np.zeros((9, 40, 40), np.uint8)
    for k in range(9):
        mask[k, : 4 * k + 1, : 4 * k + 1] = 1
    assert not review.unlike_neighbors(mask).any()
    assert not review.unlike_neighbors(mask[::-1]).any()


def test_a_lung_that_is_much_smaller_than_the_other_is_flagged():
    sides = np.where(np.arange(60) < 30, RIGHT, LEFT) * lungs()
    assert not review.sides_differ(sides).any()
    sides[8:11, 12:32, 34:] = 0
    assert found(review.sides_differ(sides)) == [8, 9, 10]


def test_the_ends_of_the_lungs_may_differ():
    sides = np.where(np.arange(60) < 30, RIGHT, LEFT) * lungs()
    sides[:5][sides[:5] == RIGHT] = 0  # the liver
    sides[-4:][sides[-4:] == LEFT] = 0
    assert not review.sides_differ(sides).any()


@pytest.mark.parametrize("shorter", [RIGHT, LEFT])
def test_the_ends_are_those_of_the_longer_lung(shorter):
    sides = np.where(np.arange(60) < 30, RIGHT, LEFT) * lungs()
    sides[:8][sides[:8] == shorter] = 0
    assert found(review.sides_differ(sides)) == [5, 6, 7]


def test_one_lung_only_differs_from_none():
    sides = RIGHT * (lungs() * (np.arange(60) < 30)).astype(np.uint8)
    assert found(review.sides_differ(sides)) == list(range(5, 15))


@pytest.mark.parametrize("shape", [(0, 8, 8), (1, 8, 8), (5, 8, 8)])
def test_volumes_without_lung_have_no_flags(shape):
    empty = np.zeros(shape, np.uint8)
    assert review.unlike_neighbors(empty).tolist() == [False] * shape[0]
    assert review.sides_differ(empty).tolist() == [False] * shape[0]


@pytest.mark.parametrize("seed", [22, 37])
@pytest.mark.parametrize(("finding", "differs"), [("", False), ("filled", True)])
def test_phantoms_are_flagged_for_a_missing_lung_only(
    seed, finding, differs, patients_with
):
    patients_with(finding)
    mask = make_volume(seed, slices=40, size=96)[1] // 255
    assert review.sides_differ(label_sides(mask)).any() == differs
    assert review.unlike_neighbors(mask).mean() <= 0.05


@pytest.mark.parametrize(
    ("disagreement", "reason"),
    [(0.0, review.UNCERTAIN), (0.09, review.UNCERTAIN), (0.1, review.MEMBERS)],
)
def test_says_whether_the_members_disagree(disagreement, reason):
    assert review.reason_of(disagreement) == reason
