"""Area and density, against the figures that came with the Kaggle set."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lungseg_jax.data.io.images import read_image, read_mask
from lungseg_jax.inference.measurements import VolumeMeasurements, measure_slice

# Square millimetres of a pixel, the same in every row of lung_stats.csv though they are
# different patients. It is 360 / 512: a spacing, it seems, that was not squared.
KAGGLE_PIXEL = 0.703125


def test_a_slice_by_hand():
    image = np.array([[-700, -800], [0, 50]], np.int16)
    mask = np.array([[True, True], [False, False]])
    assert measure_slice(image, mask, spacing_mm=(0.5, 2.0)) == {
        "area_px": 2,
        "area_mm2": 2.0,
        "area_fraction": 0.5,
        "mean_hu": -750.0,
        "p05_hu": pytest.approx(-795.0),
        "p95_hu": pytest.approx(-705.0),
    }


def test_an_empty_mask_has_no_density():
    found = measure_slice(np.zeros((2, 2), np.int16), np.zeros((2, 2), bool))
    assert found["area_px"] == 0 and found["area_mm2"] is None
    assert found["mean_hu"] is found["p05_hu"] is found["p95_hu"] is None
    empty = VolumeMeasurements().result(spacing_mm=(1, 1, 1))
    assert empty["voxels"] == 0 and empty["volume_ml"] == 0 and empty["mean_hu"] is None


def test_every_row_of_the_statistics_of_the_kaggle_set(real_data):
    """To the last digit that the file prints: ten of them, nine of the fraction."""
    with (real_data / "lung_stats.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list((real_data / "2d_images").iterdir())) == 240
    for row in rows:
        found = measure_slice(
            read_image(real_data / "2d_images" / row["img_id"]),
            read_mask(real_data / "2d_masks" / row["img_id"]) > 0,
            spacing_mm=(1.0, KAGGLE_PIXEL),
        )
        assert found["area_px"] == float(row["lung_area_px"])
        for ours, theirs, half_a_digit in (
            ("area_mm2", "lung_area_mm2", 5e-5),
            ("area_fraction", "lung_volume_fraction", 5e-10),
            ("mean_hu", "lung_mean_hu", 5e-8),
            ("p05_hu", "lung_pd05_hu", 1e-9),  # twentieths, all of them printed
            ("p95_hu", "lung_pd95_hu", 1e-9),
        ):
            close = pytest.approx(float(row[theirs]), rel=0, abs=half_a_digit)
            assert found[ours] == close, (row["img_id"], ours)


SLICES = st.lists(
    st.tuples(
        arrays(np.int16, (4, 5), elements=st.integers(-1100, 400)), arrays(bool, (4, 5))
    ),
    min_size=1,
    max_size=5,
)


@given(SLICES)
def test_a_volume_is_all_of_its_slices_at_once(slices):
    volume = VolumeMeasurements()
    for image, mask in slices:
        volume.add(image, mask)
    found = volume.result(spacing_mm=(5.0, 0.5, 0.5))
    inside = np.concatenate([image[mask] for image, mask in slices])
    assert found["voxels"] == inside.size
    assert found["volume_ml"] == pytest.approx(inside.size * 1.25 / 1000)
    if inside.size:
        low, high = np.percentile(inside, (5, 95))
        assert found["mean_hu"] == pytest.approx(inside.mean(dtype=float))
        assert found["p05_hu"] == pytest.approx(low, abs=1e-9)
        assert found["p95_hu"] == pytest.approx(high, abs=1e-9)


def test_floats_to_one_hounsfield_unit():
    rng = np.random.default_rng(0)
    image = rng.normal(-700, 100, (64, 64)).astype(np.float32)
    volume = VolumeMeasurements()
    volume.add(image, np.ones((64, 64), bool))
    low, high = np.percentile(image, (5, 95))
    found = volume.result()
    assert abs(found["p05_hu"] - low) <= 0.5 and abs(found["p95_hu"] - high) <= 0.5
    assert found["mean_hu"] == pytest.approx(image.mean(dtype=float), abs=1e-4)
    assert found["volume_ml"] is None
