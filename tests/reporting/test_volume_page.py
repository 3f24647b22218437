"""The page of a volume."""

import dataclasses
import re

import numpy as np
import pytest

from lungseg_jax.inference.volume_view import DENSITY_HU, SliceView, VolumeView
from lungseg_jax.reporting.volume_page import render_volume_page, write_volume_page


def view(*, review=(), voxel_ml=0.002, knows_review=True, name="scan.nii.gz"):
    density = np.zeros((2, len(DENSITY_HU) - 1), np.int64)
    density[0, 10], density[1, 20] = 50, 25
    slices = [
        SliceView(k, f"jpeg {k}".encode(), k in review if knows_review else None)
        for k in range(0, 12, 2)
    ]
    return VolumeView(
        name=name,
        count=12,
        slices=slices,
        coronal=[b"c"] * 4,
        sagittal=[b"s"] * 4,
        density=density,
        voxels=(600_000, 400_000),
        voxel_ml=voxel_ml,
        to_review=list(review),
    )


def test_says_volumes_and_slices_to_review():
    page = render_volume_page(view(review=(4, 7)))
    for size in ("2000 ml", "1200 ml", "800 ml"):
        assert f"<b>{size}</b>" in page
    assert "2 of 12" in page
    assert "slice 4, to review" in page and "slice 6, to review" not in page
    # A button shows the nearest slice that is there: 7 is shown as 6 or 8.
    assert re.findall(r'data-at="(\d+)">(\d+)<', page) in (
        [("2", "4"), ("3", "7")],
        [("2", "4"), ("4", "7")],
    )


def test_without_a_limit_for_review_it_says_unknown():
    assert "unknown" in render_volume_page(view(knows_review=False))


def test_without_a_geometry_it_counts_voxels():
    assert "1000000 voxels" in render_volume_page(view(voxel_ml=None))


def test_one_slice_is_visible_and_nothing_is_loaded():
    page = render_volume_page(view())
    assert page.count("<img") == 6 + 8 and page.count(" hidden") == 5
    assert "http" not in page and page.count('src="data:image/jpeg;base64,') == 14


def test_the_highest_bin_is_at_the_top():
    points = re.findall(r'points="([^"]*)"', render_volume_page(view()))
    tops = [min(float(p.split(",")[1]) for p in line.split()) for line in points]
    assert tops == [0, pytest.approx(80)]


def test_without_hounsfield_units_there_is_no_density():
    page = render_volume_page(dataclasses.replace(view(), density=None))
    assert "ensity" not in page and "HU" not in page and "<svg" not in page
    assert "<h2>Density</h2>" in render_volume_page(view())


def test_names_are_escaped(tmp_path):
    write_volume_page(tmp_path / "p.html", view(name="<script>.nii"))
    assert "<h1>&lt;script&gt;.nii</h1>" in (tmp_path / "p.html").read_text()
