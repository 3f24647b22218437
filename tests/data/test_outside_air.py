"""The share of a label that is air around the body."""

import numpy as np
import pytest

from lungseg_jax.data.outside_air import outside_air

AIR, LUNG, TISSUE = -1000, -800, 40


@pytest.fixture
def body():
    """A body of 16 x 16 pixels in air, with a lung of 8 x 4; and the lung's mask."""
    image = np.full((24, 24), AIR, np.int16)
    image[4:20, 4:20] = TISSUE
    image[8:16, 6:10] = LUNG
    return image, image == LUNG


def test_a_lung_in_a_body_has_none(body):
    assert outside_air(*body) == 0


def test_counts_air_that_the_label_has_around_the_body(body):
    image, mask = body
    mask[:2] = True  # 48 pixels beside the 32 of the lung
    assert outside_air(image, mask) == 48 / 80


def test_air_that_an_edge_of_the_picture_cuts_is_enough(body):
    image, mask = body
    mask[21:23, 12:16] = True  # below the body, not at the border itself
    assert outside_air(image, mask) == 8 / 40


def test_dense_pixels_and_closed_air_of_a_label_do_not_count(body):
    image, mask = body
    image[12:14, 14:16] = AIR  # gas
    mask[8:16, 5:18] = True
    assert outside_air(image, mask) == 0


def test_an_empty_mask_has_none(body):
    image, mask = body
    assert outside_air(image, np.zeros_like(mask)) == 0
    assert outside_air(np.full_like(image, TISSUE), mask) == 0


def test_a_lung_that_the_picture_cuts_is_air_at_its_border(body):
    """Which is why a folder with many of them is left as it is."""
    image, mask = body
    assert outside_air(image[:, 7:], mask[:, 7:]) == 1


def test_finds_three_labels_of_the_real_data(real_data):
    from lungseg_jax.data.preflight import check_folder

    checked = check_folder(real_data)
    shares = {info.name: info.outside_air for info in checked.slices}
    found = ["ID_0052_Z_0108", "ID_0134_Z_0137", "ID_0254_Z_0075"]
    assert checked.air_labels == found
    assert [shares[name] > 0.4 for name in found] == [True] * 3
    assert all(share == 0 for name, share in shares.items() if name not in found)
