"""Surface distances, against values derived by hand and two other implementations."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from surface_distance import metrics as reference

from lungseg_jax.metrics.surface_distance import surface_scores


def disc(radius, size=201, centre=100.0):
    rows, columns = np.mgrid[:size, :size]
    return np.hypot(rows - centre, columns - centre) < radius


def box(top, left, height, width, shape=(60, 60)):
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def by_points(predicted, truth, spacing=(1.0, 1.0), tolerance=2.0):
    """Surface distances by points on the outlines of the pixels, without a transform.

    Points are placed along every edge between a pixel inside and one outside, each with
    its distance to the nearest point of the other outline. These outlines are stairs, so
    they agree with contours that cut corners only to within a pixel.
    """

    def points(mask):
        outline = []
        padded = np.pad(mask, 1)
        for r, c in np.argwhere(padded):
            for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                if not padded[r + dr, c + dc]:
                    for t in (-0.5, 0.0, 0.5):
                        edge = (r + dr / 2 + t * dc, c + dc / 2 + t * dr)
                        outline.append(np.multiply(edge, spacing))
        return np.array(outline)

    a, b = points(predicted), points(truth)
    d = cdist(a, b)
    there, back = d.min(axis=1), d.min(axis=0)
    both = np.concatenate([there, back])
    return {
        "nsd": (both <= tolerance).mean(),
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "assd": both.mean(),
    }


def test_distances_of_equal_masks_are_zero():
    assert surface_scores(disc(40), disc(40), tolerance=1.0) == {
        "nsd": 1.0,
        "hd95": 0.0,
        "assd": 0.0,
    }


@pytest.mark.parametrize("gap", [1, 3, 10])
def test_concentric_discs_are_their_radii_apart(gap):
    scores = surface_scores(disc(40 + gap), disc(40), tolerance=gap + 1.0)
    assert scores["assd"] == pytest.approx(gap, abs=0.5)
    assert scores["hd95"] == pytest.approx(gap, abs=0.75)
    assert scores["nsd"] == 1.0
    near = surface_scores(disc(40 + gap), disc(40), tolerance=gap - 0.8)
    assert near["nsd"] < 0.25


def test_a_shifted_box():
    """A box of 20 x 20 by 4 columns: two sides are 4 apart, the others overlap."""
    scores = surface_scores(box(10, 10, 20, 20), box(10, 14, 20, 20), tolerance=3.0)
    assert scores["hd95"] == 4.0
    # The contour of 80 has an outer side of 20 at distance 4, an inner side at up to 4 but
    # nearer to the other box's edges at its ends, and 2 x 4 of its edges at 4 .. 0.
    inner, edges = 12 * 4 + 2 * (0.5 + 1.5 + 2.5 + 3.5), 2 * 4 * 2
    assert scores["assd"] == pytest.approx((20 * 4 + inner + edges) / 80, abs=0.05)
    assert scores["nsd"] == pytest.approx(1 - (20 + 14 + 2) / 80, abs=0.03)


@pytest.mark.parametrize("mm,pixels", [(0.8, 1), (0.4, 5), (0.6, 5), (0.8, 3)])
def test_the_tolerance_has_room_for_rounding(mm, pixels):
    """Spacings are float32 in NIfTI, and 3 * 0.8 is above 2.4."""
    masks = np.zeros((2, 40, 40), bool)
    masks[0, 10:20, 10:20] = masks[1, 10 : 20 + pixels, 10:20] = True
    for spacing in (mm, float(np.float32(mm))):
        scores = surface_scores(
            *masks, spacing=(spacing, spacing), tolerance=round(mm * pixels, 3)
        )
        assert scores["nsd"] == 1


def test_two_single_pixels():
    """Each contour is a diamond around its pixel; their corners are 5 columns apart."""
    scores = surface_scores(box(5, 5, 1, 1), box(5, 10, 1, 1), tolerance=2.0)
    assert scores == {"nsd": 0.0, "hd95": 5.0, "assd": 4.5}


def test_the_image_border_is_a_boundary():
    full = np.ones((10, 10), bool)
    scores = surface_scores(full, box(2, 2, 6, 6, (10, 10)), tolerance=1.0)
    assert scores["nsd"] == 0.0 and scores["assd"] == pytest.approx(2.2, abs=0.2)


def test_distances_are_in_the_unit_of_the_spacing():
    a, b = disc(20, 80, 40), disc(24, 80, 40)
    plain = surface_scores(a, b, tolerance=3.0)
    double = surface_scores(a, b, spacing=(2.0, 2.0), tolerance=6.0)
    assert double["hd95"] == pytest.approx(2 * plain["hd95"])
    assert double["assd"] == pytest.approx(2 * plain["assd"])
    assert double["nsd"] == pytest.approx(plain["nsd"])


def test_rows_and_columns_have_separate_spacings():
    a, b = box(10, 10, 20, 20), box(10, 14, 20, 20)
    wide = surface_scores(a, b, spacing=(1.0, 0.5), tolerance=1.0)
    assert wide["hd95"] == 2.0
    tall = surface_scores(a.T, b.T, spacing=(0.5, 1.0), tolerance=1.0)
    assert tall == pytest.approx(wide)


@pytest.mark.parametrize("flip", [False, True])
def test_one_empty_mask_has_the_largest_distance(flip):
    masks = [disc(10, 40, 20), np.zeros((40, 40), bool)]
    scores = surface_scores(*(masks[::-1] if flip else masks), tolerance=1.0)
    assert scores["nsd"] == 0.0
    assert scores["hd95"] == scores["assd"] == pytest.approx(40 * 2**0.5)
    in_mm = surface_scores(*masks, spacing=(3.0, 4.0), tolerance=1.0)
    assert in_mm["hd95"] == pytest.approx(200.0)


def test_two_empty_masks_have_no_score():
    empty = np.zeros((4, 4), bool)
    scores = surface_scores(empty, empty, tolerance=1.0)
    assert all(np.isnan(value) for value in scores.values())


MASKS = arrays(bool, (12, 14), elements=st.booleans())


@given(MASKS, MASKS)
def test_scores_are_symmetric_and_in_range(a, b):
    scores = surface_scores(a, b, tolerance=1.0)
    np.testing.assert_equal(surface_scores(b, a, tolerance=1.0), scores)
    if a.any() and b.any():
        assert 0 <= scores["nsd"] <= 1 and 0 <= scores["assd"]
        assert scores["hd95"] <= np.hypot(12, 14)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 1.3)])
def test_agrees_with_distances_of_outline_points(seed, spacing):
    """Blobs of many shapes, some touching the border."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(2, 70, 60)), (0, 6, 6))
    predicted = field[0] > 0
    truth = field[0] + 0.35 * field[1] > 0.005
    scores = surface_scores(predicted, truth, spacing=spacing, tolerance=2.0)
    walked = by_points(predicted, truth, spacing)
    assert scores["assd"] == pytest.approx(walked["assd"], abs=0.3)
    assert scores["hd95"] == pytest.approx(walked["hd95"], abs=1.0)
    assert scores["nsd"] == pytest.approx(walked["nsd"], abs=0.06)


# --- in 3D ---


def by_library(predicted, truth, spacing, tolerance):
    """The scores of the library surface-distance, by the authors of NSD."""
    distances = reference.compute_surface_distances(truth, predicted, spacing)
    there, back = reference.compute_average_surface_distance(distances)
    sizes = [distances[f"surfel_areas_{name}"].sum() for name in ("gt", "pred")]
    return {
        "nsd": reference.compute_surface_dice_at_tolerance(distances, tolerance),
        "hd95": reference.compute_robust_hausdorff(distances, 95),
        "assd": np.average([there, back], weights=sizes),
    }


def blobs(seed, shape):
    """Two similar random masks of many parts, holes and tunnels."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(2, *shape)), (0, *[2.5] * len(shape)))
    return field[0] > 0.02, field[0] + 0.4 * field[1] > 0.02


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.8), (0.6, 3.0, 1.1)])
def test_agrees_with_the_library_in_3d(seed, spacing):
    predicted, truth = blobs(seed, (22, 31, 27))
    scores = surface_scores(predicted, truth, spacing=spacing, tolerance=1.5)
    assert scores == pytest.approx(by_library(predicted, truth, spacing, 1.5), rel=1e-9)
    assert 0.1 < scores["nsd"] < 0.99


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_library_on_noise(seed):
    """Every pattern of neighbors is in it, and voxels at the border of the volume."""
    predicted, truth = np.random.default_rng(seed).random((2, 9, 8, 10)) > 0.7
    spacing = (1.5, 0.6, 0.9)
    scores = surface_scores(predicted, truth, spacing=spacing, tolerance=0.5)
    assert scores == pytest.approx(by_library(predicted, truth, spacing, 0.5), rel=1e-9)


def test_agrees_with_the_library_in_2d():
    predicted, truth = blobs(0, (70, 60))
    scores = surface_scores(predicted, truth, spacing=(0.7, 1.3), tolerance=1.0)
    expected = by_library(predicted, truth, (0.7, 1.3), 1.0)
    assert scores == pytest.approx(expected, rel=1e-9)


def test_slices_that_are_far_apart_are_far_apart():
    """Equal squares in neighboring slices: the distance is that between the slices."""
    predicted, truth = np.zeros((2, 5, 20, 20), bool)
    predicted[1, 5:15, 5:15] = truth[2, 5:15, 5:15] = True
    scores = surface_scores(predicted, truth, spacing=(6.0, 0.5, 0.5), tolerance=2.0)
    assert scores["hd95"] == 6.0
    assert surface_scores(predicted, truth, tolerance=2.0)["hd95"] == 1.0


def test_empty_volumes():
    empty, full = np.zeros((3, 4, 4), bool), np.ones((3, 4, 4), bool)
    for masks in ((empty, full), (full, empty)):
        scores = surface_scores(*masks, spacing=(4.0, 2.0, 1.0), tolerance=1.0)
        assert scores["nsd"] == 0.0
        assert scores["hd95"] == scores["assd"] == pytest.approx(224**0.5)
    both = surface_scores(empty, empty, spacing=(4.0, 2.0, 1.0), tolerance=1.0)
    assert all(np.isnan(value) for value in both.values())


def test_a_large_volume_needs_little_memory():
    """Two small masks in a volume whose distance transform would need a gigabyte."""
    predicted, truth = np.zeros((2, 200, 256, 256), bool)
    predicted[100:110, 50:90, 50:90] = truth[101:110, 50:90, 50:90] = True
    tracemalloc.start()
    surface_scores(predicted, truth, tolerance=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * predicted.size
