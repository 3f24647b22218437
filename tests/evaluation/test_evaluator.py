"""evaluation.json, against scores computed from the masks themselves."""

import dataclasses
import json

import numpy as np
import pytest

from lungseg_jax.data.metadata import SliceMetadata
from lungseg_jax.data.pairs import Slice
from lungseg_jax.evaluation.evaluator import FLIPS, evaluate, slice_metadata
from lungseg_jax.evaluation.tuning import tune
from lungseg_jax.inference.ensemble.members import AVERAGE
from lungseg_jax.inference.postprocessing import DEFAULT
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.metrics.calibration import (
    boundary_band,
    logit_histogram,
    reliability_diagram,
)
from lungseg_jax.metrics.surface_distance import surface_scores
from lungseg_jax.metrics.uncertainty import auroc, risk_coverage


@pytest.fixture(scope="module")
def tuned(every, slices):
    tuning = tune(every, lambda: slices(4, seed=7), 4)
    return dataclasses.replace(every, tuning=tuning)


def iou(masks, truths):
    both = sum((m & t).sum() for m, t in zip(masks, truths, strict=True))
    return both / sum((m | t).sum() for m, t in zip(masks, truths, strict=True))


def test_scores_are_those_of_the_masks(tuned, slices):
    some = list(slices(6))
    truths = [s.mask > 0 for s in some]
    found = evaluate(tuned, iter(some), 6)
    json.dumps(found, allow_nan=False)
    assert (found["n"], found["unit"], found["threshold"]) == (6, "px", 0.5)
    assert list(found["members"]) == ["10", "20", "30"]

    def masks_of(names, flips=False):
        predictor = tuned.subset(names).predictor(flips=flips)
        outputs = predictor.probabilities((s.image, 1.0) for s in some)
        return [m.mean(axis=0) > 0.5 for m in outputs]

    for name, scores in found["members"].items():
        assert scores["iou_pooled"] == pytest.approx(iou(masks_of([name]), truths))
    assert list(found["choices"]) == ["all", "last", AVERAGE, FLIPS]
    for choice, result in found["choices"].items():
        masks = masks_of(result["members"], flips=choice == FLIPS)
        expected = pytest.approx(iou(masks, truths))
        assert result["scores"]["iou_pooled"] == expected, choice

    deployed = LungSegmenter(tuned.subset(["10", "20", "30"]))
    segmentations = [deployed(s.image) for s in some]
    masks = [segmentation.mask for segmentation in segmentations]
    assert found["ensemble"]["iou_pooled"] == pytest.approx(iou(masks, truths))
    for s, segmentation in zip(some, segmentations, strict=True):
        row, mask = found["slices"][s.name], segmentation.mask
        distances = surface_scores(mask, s.mask > 0, tolerance=2.0)
        assert row["hd95"] == pytest.approx(distances["hd95"])
        expected = pytest.approx(segmentation.expected_iou, abs=1e-5)
        assert row["expected_iou"] == expected
        information = pytest.approx(segmentation.mutual_information.mean(), abs=1e-6)
        assert row["mutual_information"] == information
        assert row["review"] == segmentation.review
        assert row["iou"] == pytest.approx(iou([mask], [s.mask > 0]))
    assert found["postprocessing"]["chosen"] == deployed.settings.postprocessing
    chosen = found["postprocessing"]["scores"][deployed.settings.postprocessing]
    assert chosen["iou_pooled"] == found["ensemble"]["iou_pooled"]
    assert list(found["postprocessing"]["scores"]) == ["none", DEFAULT]
    without = found["postprocessing"]["scores"]["none"]
    assert without == found["choices"]["all"]["scores"]


def test_mirror_images_in_all_choices_are_not_scored_a_second_time(tuned, slices):
    found = evaluate(tuned, slices(2), 2, flips=True)
    assert list(found["choices"]) == ["all", "last", AVERAGE]
    mirrored = evaluate(tuned, slices(2), 2)["choices"][FLIPS]
    assert found["choices"]["all"] == mirrored


def test_calibration_improves_on_the_slices_it_was_fitted_on(every, slices):
    some = list(slices(6))
    tuning = tune(every, lambda: iter(some), 6)
    found = evaluate(dataclasses.replace(every, tuning=tuning), iter(some), 6)[
        "calibration"
    ]
    assert found["fitted_on"] == "validation"
    assert found["temperature"] == tuning["choices"]["all"]["temperature"] != 1.0
    assert found["image"]["after"]["nll"] < found["image"]["before"]["nll"]
    assert found["image"]["before"]["n"] == 6 * 40 * 36
    histograms = {"image": 0, "boundary": 0}
    members = every.subset(["10", "20", "30"]).predictor()
    outputs = members.probabilities((s.image, 1.0) for s in some)
    for s, members in zip(some, outputs, strict=True):
        mean, truth = members.mean(axis=0), s.mask > 0
        histograms["image"] += logit_histogram(mean, truth)
        band = boundary_band(truth)
        histograms["boundary"] += logit_histogram(mean, truth, band)
    assert 0 < histograms["boundary"].sum() < histograms["image"].sum()
    for pixels, histogram in histograms.items():
        for when, temperature in (("before", 1.0), ("after", found["temperature"])):
            scores = found[pixels][when]
            assert scores["n"] == histogram.sum()
            assert scores["reliability"] == reliability_diagram(histogram, temperature)


def test_without_clean_up_its_effect_is_not_scored_twice(trained, slices):
    tuning = trained.tuning | {"postprocessing": {"chosen": "none"}}
    found = evaluate(dataclasses.replace(trained, tuning=tuning), slices(2), 2)
    assert list(found["postprocessing"]["scores"]) == ["none"]


def test_removed_choices_of_older_runs_are_ignored(tuned, slices):
    best = tuned.tuning["choices"]["last"] | {"members": ["10"]}
    choices = tuned.tuning["choices"] | {"best": best, "greedy": best}
    older = dataclasses.replace(tuned, tuning=tuned.tuning | {"choices": choices})
    assert evaluate(older, slices(2), 2) == evaluate(tuned, slices(2), 2)


def test_only_the_requested_members_are_scored(tuned, slices):
    found = evaluate(tuned.subset(["30"]), slices(3), 3)
    assert found["choices"] == {} and list(found["members"]) == ["30"]
    average = evaluate(tuned.subset([AVERAGE]), slices(3), 3)
    assert list(average["members"]) == [AVERAGE]


def test_counts_of_flags_and_the_risk_agree_with_the_rows(tuned, slices):
    segmenter = LungSegmenter(tuned.subset(["10", "20", "30"]))
    some = list(slices(8))
    for i in (1, 4, 5):  # the mask is right
        mask = segmenter(some[i].image).mask.astype(np.uint8)
        some[i] = dataclasses.replace(some[i], mask=mask)
    found = evaluate(tuned, iter(some), 8)
    rows = found["slices"].values()
    doubts = found["uncertainty"]
    low = [row["iou"] < 0.95 for row in rows]
    assert doubts["n_low"] == sum(low) == 5
    assert doubts["flagged"] == sum(row["review"] for row in rows)
    assert doubts["flagged_low"] == sum(
        row["review"] and is_low for row, is_low in zip(rows, low, strict=True)
    )
    confidence = np.array([row["expected_iou"] for row in rows])
    loss = 1 - np.array([row["iou"] for row in rows])
    assert doubts["risk_coverage"] == risk_coverage(confidence, loss)
    assert doubts["auroc"]["expected_iou"] == auroc(-confidence, low) != 0.5


def test_distances_in_millimetres_and_intervals_over_patients(tuned, slices):
    some = list(slices(4))
    names = [s.name for s in some]
    mm = [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (1.0, 2.0)]
    table = SliceMetadata(
        patients=dict(zip(names, "AABB", strict=True)),
        spacings=dict(zip(names, mm, strict=True)),
    )
    plain = evaluate(tuned, iter(some), 4)
    found = evaluate(tuned, iter(some), 4, **slice_metadata(table, names))
    assert (found["unit"], found["intervals_over"]) == ("mm", "patients")
    segmenter = LungSegmenter(tuned.subset(["10", "20", "30"]))
    for s, spacing in zip(some, mm, strict=True):
        mask = segmenter(s.image).mask
        scores = surface_scores(mask, s.mask > 0, spacing=spacing, tolerance=2.0)
        assert found["slices"][s.name]["assd"] == pytest.approx(scores["assd"])
    assert found["ensemble"]["iou_mean"] == plain["ensemble"]["iou_mean"]
    assert found["ensemble"]["iou_mean_ci95"] != plain["ensemble"]["iou_mean_ci95"]
    assert slice_metadata(SliceMetadata({}, {}), names) == {
        "patients": None,
        "spacings": {},
    }


def test_a_slice_without_lung_on_either_side(trained, slices):
    """An unreachable threshold: empty masks, for an empty truth and for a lung."""
    sure = dataclasses.replace(trained, threshold=1.0)
    (with_lung,) = slices(1)
    without = Slice("blank", with_lung.image, np.zeros_like(with_lung.mask))
    found = evaluate(sure, iter([with_lung, without]), 2)
    assert found["ensemble"]["n_both_empty"] == 1
    assert found["ensemble"]["iou_mean"] == 0.0
    assert found["slices"]["blank"]["iou"] is None
    assert found["slices"]["blank"]["hd95"] is None
    assert found["slices"]["s00"]["nsd"] == 0.0
    json.dumps(found, allow_nan=False)


def test_flags_of_slices_without_a_score_are_counted(tuned, slices):
    (with_lung,) = slices(1)
    blank = Slice("blank", with_lung.image, np.zeros_like(with_lung.mask))
    unsure = dataclasses.replace(tuned, threshold=1.0)  # both masks are empty
    found = evaluate(unsure, iter([with_lung, blank]), 2)
    assert found["uncertainty"]["flagged"] == sum(
        row["review"] for row in found["slices"].values()
    )
    assert found["slices"]["blank"]["iou"] is None
