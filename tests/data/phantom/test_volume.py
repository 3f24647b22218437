"""A patient as a volume: continuous from slice to slice, and reproducible."""

import os

import numpy as np
import pytest

from lungseg_jax.data.phantom.volume import Scan, make_volume, plan_volume
from lungseg_jax.runtime.errors import UserError

SLICES, SIZE = 40, 96


@pytest.fixture(scope="module")
def volume():
    """Image and mask `[40 96 96]`, and the spacing."""
    return make_volume(4, slices=SLICES, size=SIZE)


def test_shapes_dtypes_and_spacing(volume):
    image, mask, spacing = volume
    assert image.shape == mask.shape == (SLICES, SIZE, SIZE)
    assert image.dtype == np.int16 and mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    between, row, column = spacing
    assert row == column and 2 < row < 8
    assert 5 < between < 20  # about half a metre in 40 slices


def test_is_a_function_of_its_arguments(volume):
    again = make_volume(4, slices=SLICES, size=SIZE)
    np.testing.assert_array_equal(again[0], volume[0])
    np.testing.assert_array_equal(again[1], volume[1])
    other, _, _ = make_volume(5, slices=SLICES, size=SIZE)
    assert (other != volume[0]).mean() > 0.5


def test_few_slices_are_drawn_ahead(monkeypatch):
    """A caller that writes slowly does not fill memory with slices."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    drawn = []
    monkeypatch.setattr(Scan, "draw", lambda self, k: drawn.append(k) or k)
    scan = plan_volume(seed=3, slices=50, size=64)
    for k, slice_ in enumerate(scan.slices()):
        assert slice_ == k and len(drawn) <= k + 4
    assert sorted(drawn) == list(range(50))


def test_reaches_from_the_abdomen_to_the_neck(volume):
    area = (volume[1] > 0).sum(axis=(1, 2))
    assert not area[:6].any() and not area[-4:].any()
    shown = np.flatnonzero(area)
    assert len(shown) > 0.4 * SLICES
    assert len(shown) == np.ptp(shown) + 1  # lung is one range of slices
    widest = area.argmax()
    assert area[shown[0]] < 0.3 * area[widest] and area[shown[-1]] < 0.5 * area[widest]


def test_neighboring_slices_show_the_same_patient(volume):
    image, mask, _ = volume
    inside = mask > 0
    area = inside.sum(axis=(1, 2))
    for k in range(SLICES - 1):
        if min(area[k : k + 2]) > 0.5 * area.max():
            overlap = (inside[k] & inside[k + 1]).sum()
            assert overlap / (inside[k] | inside[k + 1]).sum() > 0.75, k
    clipped = image.clip(-1000, 400).reshape(SLICES, -1)
    near = [np.corrcoef(a, b)[0, 1] for a, b in zip(clipped, clipped[1:])]
    far = np.corrcoef(clipped[SLICES // 8], clipped[SLICES // 2])[0, 1]
    assert min(near) > 0.75 and np.median(near) > 0.93 > far


def test_the_volume_of_the_lungs_is_plausible():
    litres = []
    for seed in range(5):
        _, mask, spacing = make_volume(seed, slices=24, size=64)
        litres.append((mask > 0).sum() * np.prod(spacing) / 1e6)
    assert 0.3 < min(litres) and max(litres) < 11 and 1.5 < np.median(litres) < 7


def test_spacing_chooses_what_is_scanned():
    scan = plan_volume(seed=1, slices=10, size=64, spacing_mm=5)
    assert scan.spacing_mm[0] == 5
    np.testing.assert_allclose(
        -np.diff(scan.levels) * scan.patient.height * scan.patient.half_width_mm, 5
    )
    other = plan_volume(seed=1, slices=20, size=64, spacing_mm=5)
    assert other.patient.height == scan.patient.height


@pytest.mark.parametrize(
    "wrong,what",
    [
        ({"size": 63}, "size=63, slices=96"),
        ({"slices": 0}, "slices=0"),
        ({"spacing_mm": 100}, "96 slices at 100 mm would not be within the body"),
        ({"spacing_mm": np.nan, "slices": 1}, "1 slice at nan mm"),
    ],
)
def test_refuses_what_it_cannot_draw(wrong, what):
    with pytest.raises(UserError, match=what) as e:
        plan_volume(**{"seed": 0, **wrong})
    assert e.value.rule or e.value.remedy


@pytest.mark.parametrize("seed,down", [(1, 1), (35, -1), (57, -1)])
def test_rows_go_from_front_to_back_also_of_prone_patients(seed, down):
    """The spine is behind the lungs, and has more bone than the sternum."""
    scan = plan_volume(seed=seed, slices=12, size=96)
    assert scan.patient.down == down
    image, mask = (
        np.stack(part) for part in zip(*map(scan.draw, range(3, 9)), strict=True)
    )
    _, row, column = np.argwhere(mask).mean(axis=0).astype(int)
    bone = image[:, :, column - 6 : column + 7] > 200
    assert bone[:, row:].sum() > 1.5 * bone[:, :row].sum()
