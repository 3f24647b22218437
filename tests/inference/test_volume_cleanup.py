"""The clean-up of a whole volume, on small masks drawn by hand."""

import numpy as np
import pytest

from lungseg_jax.inference.volume_cleanup import ISLAND, clean_volume


@pytest.fixture
def lungs():
    """Two boxes of 8 x 10 x 6 voxels that touch no border."""
    mask = np.zeros((12, 14, 20), np.uint8)
    mask[2:10, 2:12, 2:8] = mask[2:10, 2:12, 11:17] = 1
    return mask


def cleaned(mask):
    result = mask.copy()
    clean_volume(result)
    return result


def test_both_lungs_are_kept_as_they_are(lungs):
    np.testing.assert_array_equal(cleaned(lungs), lungs)


def test_a_small_component_is_dropped_although_it_is_large_in_its_slice(lungs):
    with_bowel = lungs.copy()
    with_bowel[0, 4:8, 4:9] = 1  # 20 of the 20 voxels of this slice; 4 % of a lung
    np.testing.assert_array_equal(cleaned(with_bowel), lungs)


def test_a_component_that_touches_a_lung_at_a_corner_is_another_one(lungs):
    touching = lungs.copy()
    touching[10, 12, 8] = 1
    np.testing.assert_array_equal(cleaned(touching), lungs)


def test_a_component_of_the_share_is_kept(lungs):
    size = round(ISLAND * 8 * 10 * 6)
    with_third = lungs.copy()
    with_third[8:10, 0, : size // 2] = 1
    assert with_third.sum() == lungs.sum() + size
    np.testing.assert_array_equal(cleaned(with_third), with_third)


def test_bowel_below_the_lungs_is_dropped_whatever_its_size(lungs):
    lungs[:5] = 0
    with_bowel = lungs.copy()
    with_bowel[0:4, 2:12, 2:8] = 1  # 240 voxels, more than half of a lung
    np.testing.assert_array_equal(cleaned(with_bowel), lungs)


def test_cavities_are_filled_and_what_reaches_the_outside_is_not(lungs):
    with_holes = lungs.copy()
    with_holes[5, 5:7, 4:6] = 0
    with_holes[2:10, 6, 13] = 0  # a vessel that enters from above
    expected = lungs.copy()
    expected[2:10, 6, 13] = 0
    np.testing.assert_array_equal(cleaned(with_holes), expected)


def test_a_cavity_at_the_border_of_the_volume_is_open():
    mask = np.ones((3, 6, 6), np.uint8)
    mask[0, 2, 2] = 0
    np.testing.assert_array_equal(cleaned(mask), mask)


def test_a_mask_without_lung_stays_empty():
    assert not cleaned(np.zeros((3, 4, 5), np.uint8)).any()


def test_a_full_mask_stays_full():
    assert cleaned(np.ones((3, 4, 5), np.uint8)).all()
