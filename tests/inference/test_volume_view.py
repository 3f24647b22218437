"""The view of a volume: pictures, planes and the histogram of each side."""

import cv2
import numpy as np
import pytest

from lungseg_jax.inference.contact_sheet import TILE, ContactSheet
from lungseg_jax.inference.overlay import (
    LEFT_OUTLINE,
    MAX_SIDE,
    OUTLINE,
)
from lungseg_jax.inference.sides import LEFT, RIGHT
from lungseg_jax.inference.volume_view import (
    DENSITY_HU,
    MOST_SLICES,
    PLANES,
    SIDE,
    VolumeViewer,
)

SHAPE, SPACING_MM = (10, 40, 60), (4.0, 1.0, 1.0)
VOXELS = {"right": 2400, "left": 2400}  # of `sides`


@pytest.fixture
def sides():
    sides = np.zeros(SHAPE, np.uint8)
    sides[2:8, 10:30, 5:25], sides[2:8, 10:30, 35:55] = RIGHT, LEFT
    return sides


def viewer_of(
    sides, *, spacing_mm=SPACING_MM, review=(), right=-800, left=-600, in_hu=True
):
    window_hu = (-1000.0, 400.0)
    viewer = VolumeViewer(
        sides, spacing_mm=spacing_mm, window_hu=window_hu, in_hu=in_hu
    )
    for k, labels in enumerate(sides):
        image = np.select([labels == RIGHT, labels == LEFT], [right, left], 40)
        viewer.add(k, image.astype(np.int16), k in review)
    return viewer


def decode(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def test_volumes_densities_and_slices_to_review(sides):
    view = viewer_of(sides, review=(3, 7)).view("scan.nii.gz", **VOXELS)
    assert view.name == "scan.nii.gz" and view.count == 10
    assert view.voxels == (2400, 2400)
    assert view.voxel_ml == pytest.approx(0.004)
    assert view.to_review == [3, 7]
    assert [s.review for s in view.slices] == [k in (3, 7) for k in range(10)]
    for counts, hu in zip(view.density, (-800, -600), strict=True):
        assert (
            counts.sum() == counts[np.searchsorted(DENSITY_HU, hu, "right") - 1] == 2400
        )


def test_values_beyond_the_histogram_are_in_its_outermost_bins(sides):
    density = viewer_of(sides, right=-3000, left=3000).view("", **VOXELS).density
    assert density[0, 0] == density[1, -1] == 2400


def test_values_that_are_not_hounsfield_units_are_not_densities(sides):
    assert viewer_of(sides, in_hu=False).view("", **VOXELS).density is None


def test_planes_have_square_millimetres_and_the_head_up(sides):
    sides[8:] = 0
    view = viewer_of(sides).view("", **VOXELS)
    assert len(view.coronal) == len(view.sagittal) == PLANES
    coronal, sagittal = decode(view.coronal[1]), decode(view.sagittal[0])
    assert coronal.shape == (40, 60, 3) and sagittal.shape == (40, 40, 3)
    dark = np.flatnonzero((coronal[:, 15] < 100).all(axis=-1))  # the right lung
    assert abs(dark[0] - 8) <= 2 and abs(dark[-1] - 31) <= 2  # slices 7 and 2


def test_a_point_is_at_its_place_in_every_picture():
    """With voxels of 4 x 1 x 2 mm: the coronal plane is twice as high, and so on."""
    k, row, column = 1, 8, 12  # the first plane of both directions
    image = np.full(SHAPE, -1000, np.int16)
    image[k, row, column] = 400
    window_hu = (-1000.0, 400.0)
    empty = np.zeros(SHAPE, np.uint8)
    viewer = VolumeViewer(empty, spacing_mm=(4.0, 1.0, 2.0), window_hu=window_hu)
    for i, plane in enumerate(image):
        viewer.add(i, plane, None)
    view = viewer.view("", right=0, left=0)
    scale = SIDE / 60
    for jpeg, shape, expected in (
        (view.coronal[0], (20, 60), (2 * (9 - k) + 0.5, column)),
        (view.sagittal[0], (40, 40), (4 * (9 - k) + 1.5, row)),
        (view.slices[k].picture, (128, 384), (row / 2 * scale, column * scale)),
    ):
        picture = decode(jpeg).mean(axis=-1)
        assert picture.shape == shape
        weight = np.where(picture > 0.5 * picture.max(), picture, 0)
        weight /= weight.sum()
        place = [(weight * index).sum() for index in np.indices(shape)]
        np.testing.assert_allclose(place, expected, atol=0.02 * max(shape))
    for other in (view.coronal[1], view.sagittal[1], view.slices[k + 1].picture):
        assert decode(other).max() < 30


@pytest.mark.parametrize("spacing_mm", [(1e5, 1.0, 1.0), (1.0, 1e-5, 1e5)])
def test_pictures_of_any_spacing_have_a_limited_size(sides, spacing_mm):
    view = viewer_of(sides, spacing_mm=spacing_mm).view("", **VOXELS)
    for picture in (*view.coronal, *view.sagittal, view.slices[0].picture):
        assert max(decode(picture).shape) <= MAX_SIDE


def test_outlines_of_the_sides_have_different_colors(sides):
    picture = decode(viewer_of(sides).view("", **VOXELS).slices[5].picture)
    assert max(picture.shape) == SIDE
    scale = SIDE / 60
    for column, color in ((5, OUTLINE), (54, LEFT_OUTLINE)):
        edge = picture[round(20 * scale), round((column + 0.5) * scale)]
        assert np.abs(edge.astype(int) - color).max() < 60


def test_many_slices_are_thinned_out_evenly():
    sides = np.zeros((3 * MOST_SLICES, 4, 4), np.uint8)
    shown = [s.k for s in viewer_of(sides).view("", **VOXELS).slices]
    assert len(shown) == MOST_SLICES and (shown[0], shown[-1]) == (
        0,
        3 * MOST_SLICES - 1,
    )
    assert set(np.diff(shown)) == {3, 4} or set(np.diff(shown)) == {3}


def test_a_volume_without_lung_or_geometry_has_a_view():
    view = viewer_of(np.zeros(SHAPE, np.uint8), spacing_mm=None).view(
        "", right=0, left=0
    )
    assert view.voxels == (0, 0) and view.voxel_ml is None
    assert len(view.coronal) == PLANES and not view.density.any()


def test_planes_are_rows_of_the_sheet(sides):
    viewer, sheet = viewer_of(sides), ContactSheet(10)
    for k in range(10):
        sheet.add(np.zeros((40, 60, 3), np.uint8), f"{k}")
    before = sheet.picture().shape
    viewer.add_planes(sheet)
    height, *others = sheet.picture().shape
    assert before[0] < height < before[0] + 2 * TILE and tuple(others) == before[1:]
