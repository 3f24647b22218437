"""The weights of the package."""

import itertools

import numpy as np
import pytest

import lungseg_jax as ls
from lungseg_jax.data.phantom.volume import make_volume
from lungseg_jax.inference.ensemble.bundle import verify_bundle
from lungseg_jax.inference.ensemble.location import PRETRAINED, locate
from lungseg_jax.inference.volume_cleanup import clean_volume
from lungseg_jax.metrics import overlap

MOST_BYTES = 8e6


@pytest.fixture(scope="module")
def segmenter():
    return ls.load()


def test_every_file_is_as_it_was_exported():
    folder = locate(PRETRAINED)
    verify_bundle(folder)
    assert sum(file.stat().st_size for file in folder.iterdir()) < MOST_BYTES


def test_the_program_names_no_file_of_the_machine_that_exported_it():
    program = (locate(PRETRAINED) / "program.stablehlo").read_bytes()
    assert b"site-packages" not in program and b".py" not in program


# IoU of the cleaned mask on phantoms of other seeds than those of the training.
@pytest.mark.parametrize(
    "finding,seed,iou",
    [("", 12, 0.976), ("effusion", 12, 0.953), ("filled", 11, 0.876)],
)
def test_scores_on_phantom_volumes(segmenter, finding, seed, iou, patients_with):
    patients_with(finding)
    images, truth, _ = make_volume(seed=seed, slices=16, size=160)
    mask = segmenter(images).mask.astype(np.uint8)
    clean_volume(mask)
    counts = overlap.count_pixels(mask > 0, truth > 0)
    assert overlap.iou(counts.sum(axis=0)) == pytest.approx(iou, abs=0.02)


@pytest.mark.parametrize(
    "rows,least", [pytest.param(3, 0.93, marks=pytest.mark.slow), (6, 0.85)]
)
def test_coarse_rows_cost_little(segmenter, rows, least):
    """As in the axial slices of a coronal series, whose slices are the rows."""
    images, truth, _ = make_volume(seed=12, slices=6, size=192)
    images, truth = (
        array.reshape(6, -1, rows, 192).mean(axis=2) for array in (images, truth > 0)
    )
    ious = {}
    for aspect in (1, rows):
        aspects = itertools.repeat(aspect)
        found = segmenter.stream(images.astype(np.float32), aspects=aspects)
        mask = np.stack([segmentation.mask for segmentation in found])
        counts = overlap.count_pixels(mask, truth > 0.5)
        ious[aspect] = overlap.iou(counts.sum(axis=0))
    assert ious[1] + 0.03 < ious[rows] and least < ious[rows]


def test_a_patient_without_lung_in_the_scan_has_none(segmenter):
    images, truth, _ = make_volume(seed=14, slices=24, size=160)
    abdomen = images[~truth.any(axis=(1, 2))]
    assert len(abdomen) > 4
    mask = segmenter(abdomen).mask.astype(np.uint8)
    clean_volume(mask)
    assert mask.mean() < 0.002
