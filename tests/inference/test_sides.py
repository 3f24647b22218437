"""Which lung is which, on lungs drawn by hand and on phantoms."""

import numpy as np
import pytest

from lungseg_jax.inference import sides
from lungseg_jax.inference.sides import LEFT, RIGHT, label_sides

SHAPE = (6, 60, 80)


def ellipses(*centers, radii=(20, 14), shape=SHAPE) -> np.ndarray:
    """Draw an ellipse in every slice around each (row, column)."""
    rows, columns = np.mgrid[: shape[1], : shape[2]]
    plane = np.zeros(shape[1:], bool)
    for row, column in centers:
        plane |= ((rows - row) / radii[0]) ** 2 + (
            (columns - column) / radii[1]
        ) ** 2 < 1
    return np.repeat(plane[None], shape[0], axis=0).astype(np.uint8)


RIGHT_LUNG, LEFT_LUNG = (30, 22), (30, 58)


def test_the_right_lung_is_at_the_left_of_the_image():
    labels = label_sides(ellipses(RIGHT_LUNG, LEFT_LUNG))
    np.testing.assert_array_equal(labels == RIGHT, ellipses(RIGHT_LUNG))
    np.testing.assert_array_equal(labels == LEFT, ellipses(LEFT_LUNG))


def test_lungs_that_touch_are_cut_at_the_bridge():
    right, left = ellipses(RIGHT_LUNG, radii=(26, 15)), ellipses(LEFT_LUNG)
    mask = right | left
    mask[:, 28:32, 30:50] = 1
    for turned, larger in ((mask, RIGHT), (mask[..., ::-1], LEFT)):
        labels = label_sides(turned)
        np.testing.assert_array_equal(labels > 0, turned)
        labels = labels if larger == RIGHT else labels[..., ::-1]
        assert (labels[right > 0] == larger).all()
        assert (labels[left > 0] == RIGHT + LEFT - larger).all()


def test_lungs_beside_the_middle_of_the_image_are_cut_between_them():
    mask = ellipses(RIGHT_LUNG, LEFT_LUNG)
    mask[:, 28:32, 30:50] = 1
    beside = np.pad(mask, ((0, 0), (0, 0), (0, 40)))  # its middle is in the left lung
    labels = label_sides(beside)
    np.testing.assert_array_equal(labels[..., :80], label_sides(mask))
    mirrored = np.array([0, LEFT, RIGHT])[label_sides(beside[..., ::-1])]
    different = (mirrored[..., ::-1] != labels).any(axis=(0, 1))
    assert different.sum() <= 1  # the column of the cut


def test_a_lung_beyond_the_middle_is_not_cut():
    """A collapse pulls everything to one side."""
    large = ellipses((30, 48), radii=(22, 26)) * (1 - ellipses((30, 12), radii=(9, 8)))
    small = ellipses((30, 8), radii=(7, 6)) * (1 - large)
    labels = label_sides(large | small)
    np.testing.assert_array_equal(labels == LEFT, large)
    np.testing.assert_array_equal(labels == RIGHT, small)


@pytest.mark.parametrize("lung,side", [(RIGHT_LUNG, RIGHT), (LEFT_LUNG, LEFT)])
def test_a_single_lung_is_on_its_side_of_the_image(lung, side):
    mask = ellipses(lung)
    np.testing.assert_array_equal(label_sides(mask), mask * side)


@pytest.mark.parametrize("across,side", [(1, RIGHT), (-1, LEFT)])
def test_a_narrow_lung_beside_the_middle_of_the_image_is_not_cut(across, side):
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 10:50, 20:28] = 1
    mask = mask[..., ::across]
    np.testing.assert_array_equal(label_sides(mask), mask * side)


@pytest.mark.parametrize("across,side", [(1, RIGHT), (-1, LEFT)])
def test_a_lung_that_is_beyond_the_seam_in_one_slice_stays_whole(across, side):
    mask = ellipses(RIGHT_LUNG, LEFT_LUNG)
    mask[2:5] = ellipses(RIGHT_LUNG)[2:5]
    mask[3] = ellipses((30, 47), radii=(9, 15))[3]  # connected to the right lung above
    labels = label_sides(mask[..., ::across])
    assert set(np.unique(labels[3])) == {0, side}


def test_a_mask_without_lung_has_no_sides():
    assert not label_sides(np.zeros(SHAPE, np.uint8)).any()


def test_mirrored_lungs_have_mirrored_labels():
    mask = ellipses(RIGHT_LUNG, (34, 59))
    swapped = np.array([0, LEFT, RIGHT])[label_sides(mask[..., ::-1])]
    np.testing.assert_array_equal(label_sides(mask), swapped[..., ::-1])


def test_slices_are_cut_one_by_one(monkeypatch):
    """Also if several are cut at the same time."""
    rng = np.random.default_rng(0)
    mask = (rng.random((9, 30, 40)) < 0.5).astype(np.uint8)
    together = label_sides(mask)
    monkeypatch.setattr(sides, "CHUNK", 2)
    np.testing.assert_array_equal(label_sides(mask), together)
    assert (together == RIGHT).any() and (together == LEFT).any()
