"""Hounsfield units are distinguished from values that merely look like them."""

import numpy as np
import pytest

from lungseg_jax.data.intensity import (
    DOMAINS,
    Values,
    describe_intensities,
    detect_intensity,
    require_intensity,
    values_of,
)
from lungseg_jax.data.io.images import read_image
from lungseg_jax.data.pairs import list_images
from lungseg_jax.runtime.errors import UserError


@pytest.mark.parametrize(
    "low,high,expected",
    [
        (-1024, 3071, "HU"),
        (-2600, 400, "HU"),
        (-1000.0, -900.0, "HU"),  # only air
        (0, 255, "8-bit"),
        (12, 200, "8-bit"),
        (0, 1, "unit"),
        (0.25, 0.75, "unit"),
        (0, 4095, "unsigned"),
        (0, 256, "unsigned"),
        (-100, 80, "unknown"),  # only soft tissue
        (0, 0, "unknown"),  # blank
        (-0.01, 1.2, "unit"),  # scaled by a window, with overshoot
        (-2.1, 6.3, "unit"),  # normalised by mean and standard deviation
    ],
)
def test_detects_the_domain(low, high, expected):
    assert detect_intensity(Values(low, high)) == expected
    assert expected in DOMAINS


@pytest.mark.parametrize("range_", [(0, 255), (0, 1), (0, 4095)])
def test_refuses_other_values_with_a_remedy(range_):
    with pytest.raises(UserError, match="^error: a.png has ") as e:
        require_intensity(Values(*range_), "HU", "a.png")
    assert "trained on Hounsfield units" in e.value.what and e.value.remedy


def test_a_slice_may_show_a_part_of_the_values_of_its_volume():
    for values in (Values(0, 52), Values(0, 1)):
        require_intensity(values, "HU", "slice 0", volume="HU")
        for volume in ("unknown", "8-bit"):
            with pytest.raises(UserError, match="slice 0 has "):
                require_intensity(Values(0, 52), "HU", "slice 0", volume=volume)
    require_intensity(Values(0, 1), "8-bit", "slice 0", volume="8-bit")
    with pytest.raises(UserError, match="before the offset"):
        require_intensity(Values(0, 3000, 0.17), "HU", "slice 0", volume="HU")


def test_a_slice_padded_with_0_may_hold_bone_if_its_volume_is_in_hounsfield_units():
    for values in (Values(0, 300), Values(0, 1362, 0.008)):
        require_intensity(values, "HU", "slice 0", volume="HU")
        for volume in ("unknown", "8-bit"):
            with pytest.raises(UserError, match="before the offset"):
                require_intensity(values, "HU", "slice 0", volume=volume)


def test_dicom_files_in_other_units_lack_their_intercept():
    for is_dicom in (True, False):
        with pytest.raises(UserError) as e:
            require_intensity(Values(0, 3000), "HU", "a", is_dicom=is_dicom)
        assert is_dicom == ("lack Rescale Intercept" in e.value.remedy)


@pytest.mark.parametrize("is_dicom", [False, True])
@pytest.mark.parametrize("values", [(0, 65535), (-1.05e6, 1.2e6, 0.5), (0, 40000)])
def test_no_intercept_turns_values_far_from_those_of_a_scan_into_one(values, is_dicom):
    with pytest.raises(UserError, match="a has values that no CT scan has") as e:
        require_intensity(Values(*values), "HU", "a", is_dicom=is_dicom)
    assert "ntercept" not in e.value.remedy
    require_intensity(Values(*values), "unsigned", "a")


def test_padding_below_values_as_stored_does_not_contradict_the_message():
    with pytest.raises(UserError, match="a has values as CT files store them") as e:
        require_intensity(Values(-2000, 3000, 0.5), "HU", "a")
    assert "from 0 up" not in str(e.value) and "intercept" in e.value.remedy


def test_refuses_hounsfield_units_for_a_network_of_pictures():
    with pytest.raises(UserError, match="gray values"):
        require_intensity(Values(-1000, 400), "8-bit", "a.tif")


@pytest.mark.parametrize("trained_on", ["HU", "8-bit", "unsigned"])
def test_accepts_a_blank_image(trained_on):
    assert require_intensity(Values(0, 0), trained_on, "a.tif") == "unknown"
    assert require_intensity(Values(-1000, 400), "unknown", "a.tif") == "HU"


def test_says_that_images_without_air_may_have_any_units():
    line = describe_intensities({"unknown"}, -125, 125)
    assert "(-125 to 125), none as low as air (-200 HU): masks are meaningless" in line
    for domains in ({"HU"}, {"HU", "unknown"}):
        assert describe_intensities(domains, -1000, 125).endswith("(-1000 to 125)")


def test_values_of():
    images = [np.array([[1, 5]]), np.array([[-3.5, 900]])]
    assert values_of(images) == (-3.5, 900.0, 0.25)


def test_detects_hounsfield_units_in_every_kaggle_slice(real_data):
    for path in list_images(real_data / "2d_images").values():
        image = read_image(path)
        assert detect_intensity(values_of([image])) == "HU", path
        # As stored before the offset: padding, if any, stays far below.
        stored = np.where(image < -1200, -2000, image.astype(int) + 1024)
        assert detect_intensity(values_of([stored])) == "unsigned", path
