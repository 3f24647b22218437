"""Area and density of the lung, checked against the statistics of the Kaggle set."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lungseg_jax.data.io.images import read_image, read_mask
from lungseg_jax.inference.measurements import VolumeMeasurements, measure_slice

# Area of a pixel in mm2, the same in all rows of lung_stats.csv although the patients
# differ. It is 360 / 512, apparently a spacing that was not squared.
KAGGLE_PIXEL_MM2 = 0.703125


def test_measures_a_slice_computed_by_hand():
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


def test_measures_8_bit_pixels_without_a_warning():
    image, mask = np.full((2, 2), 255, np.uint8), np.ones((2, 2), bool)
    with np.errstate(all="raise"):
        assert measure_slice(image, mask)["p05_hu"] == 255


def test_measures_half_floats_without_a_warning():
    measurements = VolumeMeasurements()
    with np.errstate(all="raise"):
        measurements.add(np.full((2, 2), -850, np.float16), np.ones((2, 2), bool))
    assert measurements.result()["p05_hu"] == -850


def test_an_empty_mask_has_no_density():
    row = measure_slice(np.zeros((2, 2), np.int16), np.zeros((2, 2), bool))
    assert row["area_px"] == 0 and row["area_mm2"] is None
    assert row["mean_hu"] is row["p05_hu"] is row["p95_hu"] is None
    empty = VolumeMeasurements().result(spacing_mm=(1, 1, 1))
    assert empty["voxels"] == 0 and empty["volume_ml"] == 0 and empty["mean_hu"] is None


def test_reproduces_every_row_of_the_kaggle_statistics(real_data):
    """All printed digits agree: ten, or nine for the fraction."""
    with (real_data / "lung_stats.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list((real_data / "2d_images").iterdir())) == 240
    for row in rows:
        measurements = measure_slice(
            read_image(real_data / "2d_images" / row["img_id"]),
            read_mask(real_data / "2d_masks" / row["img_id"]) > 0,
            spacing_mm=(1.0, KAGGLE_PIXEL_MM2),
        )
        assert measurements["area_px"] == float(row["lung_area_px"])
        for name, column, half_a_digit in (
            ("area_mm2", "lung_area_mm2", 5e-5),
            ("area_fraction", "lung_volume_fraction", 5e-10),
            ("mean_hu", "lung_mean_hu", 5e-8),
            ("p05_hu", "lung_pd05_hu", 1e-9),  # multiples of 0.05, printed in full
            ("p95_hu", "lung_pd95_hu", 1e-9),
        ):
            close = pytest.approx(float(row[column]), rel=0, abs=half_a_digit)
            assert measurements[name] == close, (row["img_id"], name)


SLICES = st.lists(
    st.tuples(
        arrays(np.int16, (4, 5), elements=st.integers(-1100, 400)), arrays(bool, (4, 5))
    ),
    min_size=1,
    max_size=5,
)


@given(SLICES)
def test_a_volume_equals_its_concatenated_slices(slices):
    volume = VolumeMeasurements()
    for image, mask in slices:
        volume.add(image, mask)
    measurements = volume.result(spacing_mm=(5.0, 0.5, 0.5))
    inside = np.concatenate([image[mask] for image, mask in slices])
    assert measurements["voxels"] == inside.size
    assert measurements["volume_ml"] == pytest.approx(inside.size * 1.25 / 1000)
    if inside.size:
        low, high = np.percentile(inside, (5, 95))
        assert measurements["mean_hu"] == pytest.approx(inside.mean(dtype=float))
        assert measurements["p05_hu"] == pytest.approx(low, abs=1e-9)
        assert measurements["p95_hu"] == pytest.approx(high, abs=1e-9)


def test_percentiles_of_floats_are_within_half_a_hounsfield_unit():
    rng = np.random.default_rng(0)
    image = rng.normal(-700, 100, (64, 64)).astype(np.float32)
    volume = VolumeMeasurements()
    volume.add(image, np.ones((64, 64), bool))
    low, high = np.percentile(image, (5, 95))
    measurements = volume.result()
    assert abs(measurements["p05_hu"] - low) <= 0.5
    assert abs(measurements["p95_hu"] - high) <= 0.5
    assert measurements["mean_hu"] == pytest.approx(image.mean(dtype=float), abs=1e-4)
    assert measurements["volume_ml"] is None
