"""Clean-up of masks: each rule by example, and how little it changes true masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lungseg_jax.data.io.images import read_mask
from lungseg_jax.inference import postprocessing as module
from lungseg_jax.inference.postprocessing import DEFAULT, POSTPROCESSING, postprocess
from lungseg_jax.runtime.errors import UserError

NAMES = list(POSTPROCESSING)


@pytest.fixture
def lungs():
    """Two lungs of 60 x 30, a lobe of 20 x 10, a speck of 2 x 2, holes of 1 and 10 x 10."""
    mask = np.zeros((100, 100), bool)
    mask[10:70, 10:40] = mask[10:70, 50:80] = True
    mask[75:95, 60:70] = True
    mask[90:92, 10:12] = True
    mask[30, 20] = False
    mask[40:50, 55:65] = False
    return mask


SPECK, LOBE = np.s_[90:92, 10:12], np.s_[75:95, 60:70]
SMALL, LARGE = (30, 20), np.s_[40:50, 55:65]


@pytest.mark.parametrize("name", NAMES)
def test_each_rule_by_example(lungs, name):
    before = lungs.copy()
    cleaned = postprocess(lungs, name)
    np.testing.assert_array_equal(lungs, before)
    assert cleaned.dtype == bool and not np.shares_memory(cleaned, lungs)
    assert cleaned[SMALL] == ("fill_holes" in name)
    assert not cleaned[LARGE].any()  # the heart is not lung
    assert cleaned[SPECK].all() == (name in ("none", "fill_holes", "drop_fluid"))
    assert cleaned[LOBE].all() == ("two_largest" not in name)
    assert cleaned[10:30, 10:40].all() and cleaned[10:30, 50:80].all()


@pytest.mark.parametrize("name", NAMES)
def test_one_lung_no_lung_and_only_lung(name):
    empty = np.zeros((20, 20), bool)
    assert not postprocess(empty, name).any()
    lung = empty.copy()
    lung[5:15, 5:9] = True
    np.testing.assert_array_equal(postprocess(lung, name), lung)
    assert postprocess(~empty, name).all()


def test_a_bay_is_not_a_hole():
    bay = np.ones((50, 50), bool)
    bay[0, 20] = bay[49, 20] = bay[20, 0] = bay[20, 49] = False  # at each border
    np.testing.assert_array_equal(postprocess(bay, "fill_holes"), bay)


def test_lung_connects_over_corners_but_background_does_not():
    mask = np.zeros((100, 100), bool)
    mask[5:95, 5:50] = True
    mask[4, 4] = True  # touches the corner of the lung
    assert postprocess(mask, "drop_islands")[4, 4]
    mask[50, 49] = False  # touches the outside ...
    mask[51, 48] = False  # ... over a corner: a hole
    filled = postprocess(mask, "fill_holes")
    assert not filled[50, 49] and filled[51, 48]


@given(arrays(bool, (16, 17)), st.sampled_from(NAMES))
def test_islands_are_only_removed_and_the_result_is_stable(mask, name):
    """Masks this small have no hole below a thousandth of their area."""
    once = postprocess(mask, name)
    np.testing.assert_array_equal(postprocess(once, name), once)
    assert not (once & ~mask).any()


@given(mask=arrays(bool, (16, 17)))
def test_without_a_size_limit_every_hole_is_filled(mask):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HOLE", 1000.0)
        filled = postprocess(mask, "fill_holes")
    np.testing.assert_array_equal(filled, ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize("side,is_filled", [(3, True), (4, False)])
def test_holes_are_measured_against_the_lung(side, is_filled):
    mask = np.ones((110, 110), bool)
    mask[50 : 50 + side, 50 : 50 + side] = False  # 9 or 16 of a lung of 12,100
    assert postprocess(mask, "fill_holes")[50, 50] == is_filled


@pytest.mark.parametrize("length,stays", [(10, True), (9, False)])
def test_islands_are_measured_against_the_largest(length, stays):
    mask = np.zeros((50, 50), bool)
    mask[:20] = True  # 1000
    mask[30, :length] = True
    assert postprocess(mask, "drop_islands")[30, 0] == stays


def test_two_largest_keeps_components_of_equal_size():
    mask = np.zeros((9, 9), bool)
    mask[0, :5] = mask[2, :3] = mask[4, :3] = mask[6, :2] = True
    kept = postprocess(mask, "two_largest")
    assert kept[2, 0] and kept[4, 0] and not kept[6].any()


@pytest.mark.parametrize("name", ["", "fill", "fill_holes+none"])
def test_refuses_an_unknown_name(name):
    with pytest.raises(UserError, match="unknown postprocessing"):
        postprocess(np.ones((2, 2), bool), name)


def test_fluid_is_dropped_before_islands(lungs):
    """What it leaves behind may be an island, and it needs values in Hounsfield units."""
    image = np.where(lungs, -700.0, 50.0)
    image[40:70, 10:40] = 5.0
    image[70, 10:12] = lungs[70, 10:12] = -700.0  # a speck below it
    cleaned = postprocess(lungs, DEFAULT, image)
    assert not cleaned[42:71, 10:40].any() and cleaned[10:38, 10:40].all()
    assert postprocess(lungs, DEFAULT)[42:71, 10:12].all()


def test_the_default_is_known():
    assert DEFAULT in POSTPROCESSING


def test_true_masks_hardly_change(real_data):
    masks = [read_mask(p) > 0 for p in sorted((real_data / "2d_masks").iterdir())]
    lung = sum(mask.sum() for mask in masks)

    def changed(name):
        pixels = [(mask != postprocess(mask, name)).sum() for mask in masks]
        most = max(n / mask.sum() for n, mask in zip(pixels, masks, strict=True))
        return np.count_nonzero(pixels), sum(pixels) / lung, most

    slices, share, most = changed("drop_islands")
    assert slices == 16 and share < 3.7e-5 and most < 0.0026
    slices, share, most = changed("fill_holes")
    assert slices == 39 and share < 4.6e-5 and most < 0.0034
    slices, share, most = changed("two_largest")
    assert slices == 18 and share > 0.0065 and most > 0.42


def test_a_bay_at_the_edge_of_the_lung_is_not_a_hole():
    """Only the part of a slice with lung is looked at, and a bay ends at its border."""
    lung = np.zeros((120, 120), bool)
    lung[10:110, 10:110] = True
    lung[10:13, 50] = False
    with_hole = lung.copy()
    with_hole[60, 60] = False
    np.testing.assert_array_equal(postprocess(with_hole, "fill_holes"), lung)


@given(arrays(bool, st.tuples(*[st.integers(1, 20)] * 2)))
def test_components_are_those_of_scipy(mask):
    """A form of the library that is used is wrong for bool in some of these cases."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    largest = np.sort(areas)[-2:] if count > 1 else [0]
    expected = mask & (areas >= largest[0])[labels]
    np.testing.assert_array_equal(postprocess(mask, "two_largest"), expected)
