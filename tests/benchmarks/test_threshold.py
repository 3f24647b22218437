"""The ten-line threshold, against which runs are compared."""

import numpy as np
import pytest
from contestants.threshold import threshold_lungs


def ellipse(shape, center, radii):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.hypot((y - center[0]) / radii[0], (x - center[1]) / radii[1]) < 1


@pytest.fixture
def chest():
    """A body with two lungs, one with a vessel, a smaller bubble, and air around it."""
    shape = 96, 128
    lungs = ellipse(shape, (48, 42), (25, 14)) | ellipse(shape, (48, 86), (25, 14))
    hu = np.where(ellipse(shape, (48, 64), (40, 55)), 40, -1000)
    hu[lungs] = -800
    hu[46:50, 40:44] = 40
    hu[ellipse(shape, (48, 64), (3, 3))] = -900
    return hu, lungs


def test_finds_two_lungs_with_their_vessels(chest):
    hu, lungs = chest
    found = threshold_lungs(hu)
    assert found.dtype == bool
    assert (found & lungs).sum() / (found | lungs).sum() > 0.98
    assert found[48, 42] and not found[48, 64] and not found[0, 0]


def test_finds_nothing_where_all_air_touches_the_border(chest):
    hu, lungs = chest
    hu[:, 64:][lungs[:, 64:]] = 40
    hu[44:52, :64] = -800  # the other lung is open to the side
    found = threshold_lungs(hu)
    assert found.sum() < 60  # the bubble
    assert not threshold_lungs(np.full((32, 32), 40)).any()
    assert not threshold_lungs(np.full((32, 32), -1000)).any()
