"""What is lung in a phantom's mask, and what is not."""

import dataclasses

import cv2
import numpy as np
import pytest

from lungseg_jax.data.phantom import (
    abdomen,
    airways,
    cavity,
    great_vessels,
    lung,
    mediastinum,
    pathology,
    placement,
    pleura,
)
from lungseg_jax.data.phantom.canvas import Canvas
from lungseg_jax.data.phantom.dataset import PLEURA, _with_pleura, paint_section
from lungseg_jax.data.phantom.patient import draw_patient

SIZE, LEVEL = 192, 0.5
NONE = dict.fromkeys(pathology.CHANCES, 0.0)
SEEDS = range(3)


@pytest.fixture(autouse=True)
def healthy(monkeypatch):
    """Patients have only the diseases that a test gives them."""
    monkeypatch.setattr(pathology, "CHANCES", NONE)
    for name in ("NODULES_CHANCE", "MASS_CHANCE", "BULLAE_CHANCE"):
        monkeypatch.setattr(pathology, name, 0.0)
    monkeypatch.setattr(pleura, "CHANCES", dict.fromkeys(pleura.CHANCES, 0.0))


def draw(seed: int, level: float = LEVEL, down: int = 1):
    """Return image and mask `[192 192]`, as painted: without the scanner."""
    patient = dataclasses.replace(draw_patient((77, seed)), lung_hu=-850.0, down=down)
    section = pleura.displace(patient).at(level)
    canvas = Canvas(SIZE, placement.make_frame(0.36, 0.0, down, (0.5, 0.5)), -1000.0)
    mask = paint_section(canvas, section)
    return canvas.image, mask > 0, section, canvas


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("disease", pathology.CHANCES)
def test_disease_changes_the_lung_and_not_its_mask(disease, seed, monkeypatch):
    image, mask, *_ = draw(seed, 0.6)
    monkeypatch.setattr(pathology, "CHANCES", {**NONE, disease: 1.0})
    sick_image, sick_mask, *_ = draw(seed, 0.6)
    np.testing.assert_array_equal(sick_mask, mask)
    np.testing.assert_array_equal(sick_image[~mask], image[~mask])
    if disease == "emphysema":
        assert sick_image[mask].mean() < image[mask].mean()
    elif disease == "fibrosis":
        assert sick_image[mask].std() > image[mask].std()
    elif disease in ("whole", "diffuse"):
        assert sick_image[mask].mean() > image[mask].mean() + 40


def test_a_consolidated_lung_is_lung(monkeypatch):
    monkeypatch.setattr(pathology, "CHANCES", {**NONE, "whole": 1.0})
    dense = [(image[mask] > -200).mean() for image, mask, *_ in map(draw, range(5))]
    assert max(dense) > 0.35  # one of two lungs


@pytest.mark.parametrize("lesion", ["NODULES_CHANCE", "MASS_CHANCE", "BULLAE_CHANCE"])
def test_nodules_masses_and_bullae_are_lung(lesion, monkeypatch):
    changed = 0
    for seed in SEEDS:
        image, mask, *_ = draw(seed)
        with monkeypatch.context() as m:
            m.setattr(pathology, lesion, 1.0)
            sick_image, sick_mask, *_ = draw(seed)
        np.testing.assert_array_equal(sick_mask, mask)
        changed += (np.abs(sick_image - image)[mask] > 50).sum()
    assert changed > 20


@pytest.mark.parametrize(
    "finding,low,high",
    [("effusion", -30, 60), ("filled", -30, 60), ("pneumothorax", -1000, -950)],
)
@pytest.mark.parametrize("level", [0.2, 0.65])
def test_fluid_and_air_around_the_lung_are_not_lung(
    finding, low, high, level, monkeypatch
):
    for seed in SEEDS:
        _, mask, *_ = draw(seed, level)
        with monkeypatch.context() as m:
            m.setattr(pleura, "CHANCES", {**pleura.CHANCES, finding: 1.0})
            m.setattr(pleura, "displace", lambda patient: patient)
            sick_image, sick_mask, *_ = draw(seed, level)
        lost = mask & ~sick_mask
        inner = cv2.erode(lost.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert lost.mean() > 0.002 and inner.any()
        assert low < np.median(sick_image[inner]) < high
        if finding != "filled":
            lower = _center(lost)[0] - _center(mask)[0]
            assert lower > 0 if finding == "effusion" else lower < 0
        assert sick_mask.mean() < mask.mean()


def _center(mask):
    """Return the mean row and column of a mask."""
    return np.argwhere(mask).mean(axis=0)


def test_the_liver_is_at_the_left_of_the_image(monkeypatch):
    monkeypatch.setattr(abdomen, "LIVER_HU", (5000.0, 5000.0))
    for seed in SEEDS:
        for down in (1, -1):
            image, *_ = draw(seed, 0.95, down)
            liver = image > 4000
            assert liver.mean() > 0.02
            assert _center(liver)[1] < 0.42 * SIZE


def test_a_prone_patient_is_turned_upside_down():
    for seed in SEEDS:
        (_, supine, *_), (_, prone, *_) = (draw(seed, down=down) for down in (1, -1))
        edge = cv2.morphologyEx(
            supine.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)
        )
        assert not (prone[::-1] != supine)[edge == 0].any()
        assert (prone != supine)[edge == 0].mean() > 0.02


def test_what_remains_of_a_collapsed_lung_is_lung(monkeypatch):
    monkeypatch.setattr(pleura, "CHANCES", {**pleura.CHANCES, "collapse": 1.0})
    dense = [(image[mask] > -200).mean() for image, mask, *_ in map(draw, SEEDS)]
    assert np.mean(dense) > 0.15


@pytest.mark.parametrize("level", [0.05, 0.2, 0.35, 0.45, 0.5, 0.6])
def test_large_airways_are_not_lung(level):
    for seed in SEEDS:
        image, mask, section, canvas = draw(seed, level)
        lumina, _ = airways.sections(section)
        cover = canvas.cover(*lumina) > 0
        assert lumina and not mask[cover].any()
        assert image[cover].min() < -900


def test_narrow_vessels_of_the_hila_are_lung_and_wide_ones_are_not():
    inside = {True: [], False: []}
    for seed in range(12):
        _, mask, section, canvas = draw(seed, 0.6)
        organs = mediastinum.draw(section)
        for are_wide, found in inside.items():
            hila = great_vessels.draw_hila(section, are_wide=are_wide)
            cover = canvas.cover(*_outlines(hila)) > 250
            if not are_wide:
                cover &= canvas.cover(*_outlines(organs)) == 0
                cover &= canvas.cover(*airways.sections(section)[1]) == 0
            found += mask[cover].tolist()
    assert min(map(len, inside.values())) > 30
    assert np.mean(inside[True]) < 0.02 and np.mean(inside[False]) > 0.9


def _outlines(organs):
    return (outline for outlines, _ in organs for outline in outlines)


def test_the_mask_includes_the_pleura():
    for seed in SEEDS:
        _, mask, section, canvas = draw(seed)
        painted = cavity.paint(canvas, section, pleura.draw(section.patient)) > 0
        assert mask[painted].all()
        wider = cv2.dilate(painted.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert not mask[~wider].any()
    _, mask, section, _ = draw(0)
    canvas = Canvas(1024, placement.make_frame(0.36, 0.0, 1, (0.5, 0.5)), -1000.0)
    painted = cavity.paint(canvas, section, pleura.draw(section.patient))
    added = _with_pleura(canvas, painted) > 0
    edge = cv2.morphologyEx(painted, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    width = (added & (painted == 0)).sum() / (edge.sum() / 2)  # pixels
    assert width == pytest.approx(PLEURA * canvas.unit_px, rel=0.3)


@pytest.mark.parametrize("level", [-0.45, -0.2, -0.02, 1.1, 1.4, 1.9, 2.5])
def test_there_is_no_lung_outside_of_the_chest(level):
    for seed in SEEDS:
        _, mask, *_ = draw(seed, level)
        assert not mask.any()


def test_air_in_neck_and_abdomen_is_there_to_be_mistaken_for_lung():
    for level in (-0.2, 1.2):
        air = []
        for seed in range(6):
            image, _, section, canvas = draw(seed, level)
            body = canvas.cover(section.ring(section.cavity)) > 127
            air.append((image[body] < -850).mean())
        assert np.mean(air) > 0.003


def test_gas_below_the_diaphragm_is_not_lung(monkeypatch):
    """Gas is painted only within the abdomen, which no mask overlaps."""
    monkeypatch.setattr(abdomen, "FULL_STOMACH_CHANCE", 1.0)
    for seed in SEEDS:
        _, mask, section, canvas = draw(seed, 0.9)
        inside = canvas.cover(section.ring(section.cavity))
        below = cavity._below_diaphragm(canvas, section, inside)
        assert (below > 250).mean() > 0.05
        assert not mask[below > 250].any()


def test_mask_and_image_agree_without_disease():
    for seed in SEEDS:
        image, mask, section, canvas = draw(seed)
        inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert np.median(image[inner]) < -700
        inside = canvas.cover(section.ring(section.cavity)) > 127
        outside = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
        assert (image[inside & outside] > -200).mean() > 0.85


def test_an_empty_mask_is_left_alone():
    image, mask, section, canvas = draw(0, 1.5)
    before = canvas.image.copy()
    lung.paint(canvas, section, mask.astype(np.uint8), pleura.draw(section.patient))
    np.testing.assert_array_equal(canvas.image, before)
