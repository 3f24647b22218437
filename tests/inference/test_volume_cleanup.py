"""The clean-up of a whole volume, on small masks drawn by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lungseg_jax.inference.volume_cleanup import (
    AIR,
    BESIDE,
    COMPONENT,
    clean_volume,
    mark_air,
)


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
    size = round(COMPONENT * 8 * 10 * 6)
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


@given(
    arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 3), elements=st.integers(0, 2))
)
def test_components_and_cavities_are_those_of_scipy(mask):
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())[1:]
    extents = [range(s[0].start, s[0].stop) for s in ndimage.find_objects(labels)]
    kept = np.zeros(mask.shape, bool)
    for k in range(count):
        common = len({*extents[k]} & {*extents[sizes.argmax()]})
        if sizes[k] >= COMPONENT * sizes.max() and common >= BESIDE * len(extents[k]):
            kept |= labels == k + 1
    np.testing.assert_array_equal(cleaned(mask), ndimage.binary_fill_holes(kept))


def cleaned_with_air(mask):
    result = mask.copy()
    clean_volume(result, has_air=True)
    assert set(np.unique(result)) <= {0, 1}
    return result


def test_a_mask_without_air_is_not_lung(lungs):
    """A liver that was taken for lungs filled with tissue."""
    assert not cleaned_with_air(lungs).any()
    lungs[lungs > 0] = AIR
    np.testing.assert_array_equal(cleaned_with_air(lungs), lungs > 0)


def test_a_lung_filled_with_tissue_is_kept_beside_one_with_air(lungs):
    lungs[:, :, :8] *= AIR
    np.testing.assert_array_equal(cleaned_with_air(lungs), lungs > 0)


def test_a_small_part_without_air_is_dropped(lungs):
    with_liver = lungs * np.uint8(AIR)
    with_liver[2:6, 0, :9] = 1  # 36 voxels, above COMPONENT
    np.testing.assert_array_equal(cleaned_with_air(with_liver), lungs)
    with_liver[with_liver == 1] = AIR
    np.testing.assert_array_equal(cleaned_with_air(with_liver), with_liver > 0)


def test_a_liver_with_some_gas_is_not_what_lungs_are_compared_with():
    """It is larger than both lungs, one of which is filled with tissue."""
    lungs = np.zeros((26, 20, 30), np.uint8)
    lungs[13:23, 2:12, 2:8], lungs[13:23, 2:12, 21:27] = AIR, 1
    with_liver = lungs.copy()
    with_liver[0:14, :, 9:20] = 1
    with_liver[0:14, 9, 9:11] = AIR
    air = (with_liver == AIR).sum() - (lungs == AIR).sum()
    liver = (with_liver > 0).sum() - (lungs > 0).sum()
    assert liver > 2 * (lungs > 0).sum() and 0.005 < air / liver < 0.02
    np.testing.assert_array_equal(cleaned_with_air(with_liver), lungs > 0)


def test_a_stomach_beside_the_tip_of_a_lung_is_dropped(lungs):
    """It has no air, and is larger than a lung filled with tissue would be."""
    lungs[:, :, 4:8] = 0
    lungs[:, :, :8] *= AIR
    assert (lungs == 1).sum() == 3 * (lungs == AIR).sum()
    np.testing.assert_array_equal(cleaned_with_air(lungs), lungs > 0)
    lungs[:, 2, :8] = 0
    np.testing.assert_array_equal(cleaned_with_air(lungs), lungs == AIR)


def test_vessels_and_air_are_one_component(lungs):
    mixed = lungs * np.uint8(AIR)
    mixed[4:7, 4:8, 4:6] = 1
    np.testing.assert_array_equal(cleaned_with_air(mixed), lungs)


def test_marks_air():
    image, mask = np.array([[-900, -100, -900]]), np.array([[True, True, False]])
    assert mark_air(image, mask).tolist() == [[AIR, 1, 0]]
