"""The table of metrics, and that a metric added to it appears in every result."""

import numpy as np
import pytest

from lungseg_jax.evaluation.slice_scores import SliceScores
from lungseg_jax.metrics.registry import (
    METRICS,
    MaskPair,
    Metric,
    label_with_unit,
    summary_scores,
)


def box(left, shape=(40, 40)):
    mask = np.zeros(shape, bool)
    mask[10:30, left : left + 20] = True
    return mask


@pytest.fixture
def specificity(monkeypatch):
    """A metric that is undefined where the truth fills the image."""

    def compute(pair: MaskPair) -> float:
        background = ~pair.truth
        if not background.any():
            return float("nan")
        return float((background & ~pair.predicted).sum() / background.sum())

    metric = Metric(
        name="specificity",
        label="specificity",
        meaning="share of the background that is left free",
        compute=compute,
    )
    monkeypatch.setitem(METRICS, metric.name, metric)
    return metric


def test_keys_are_the_names():
    assert [metric.name for metric in METRICS.values()] == list(METRICS)
    assert list(METRICS) == [
        "iou",
        "dice",
        "sensitivity",
        "precision",
        "nsd",
        "hd95",
        "assd",
        "area_error",
    ]


def test_metrics_of_a_shifted_box():
    pair = MaskPair(box(14), box(10), spacing=None, tolerance=2.0)
    scores = {name: metric.compute(pair) for name, metric in METRICS.items()}
    assert all(type(value) is float for value in scores.values())
    assert scores["iou"] == pytest.approx(16 / 24)
    assert scores["dice"] == scores["sensitivity"] == scores["precision"] == 0.8
    assert scores["hd95"] == 4.0 and scores["area_error"] == 0.0


def test_metrics_of_two_empty_masks_are_undefined():
    empty = np.zeros((4, 4), bool)
    pair = MaskPair(empty, empty, spacing=(1.0, 1.0), tolerance=2.0)
    assert all(np.isnan(metric.compute(pair)) for metric in METRICS.values())


def test_a_pair_computes_surface_distances_once(monkeypatch):
    calls = []

    def surface_scores(*masks, **options):
        calls.append(options)
        return {"nsd": 1.0, "hd95": 0.0, "assd": 0.0}

    monkeypatch.setattr("lungseg_jax.metrics.registry.surface_scores", surface_scores)
    pair = MaskPair(box(10), box(10), spacing=(0.5, 0.5), tolerance=1.0)
    for name in ("nsd", "hd95", "assd"):
        METRICS[name].compute(pair)
    assert calls == [{"spacing": (0.5, 0.5), "tolerance": 1.0}]


def test_only_distances_are_labelled_with_their_unit():
    labels = {score.key: label_with_unit(score, "mm") for score in summary_scores()}
    assert labels["hd95_mean"] == "HD95, mm" and labels["assd_mean"] == "ASSD, mm"
    assert labels["iou_pooled"] == "IoU, pooled" and labels["nsd_mean"] == "NSD"
    assert (
        label_with_unit(METRICS["hd95"], "px", "of the volume") == "of the volume, px"
    )


def test_an_added_metric_is_in_every_row_and_in_the_means(specificity):
    scores = SliceScores(tolerance=2.0)
    full, empty = np.ones((40, 40), bool), np.zeros((40, 40), bool)
    scores.add("shifted", box(14), box(10))
    scores.add("equal", box(10), box(10))
    scores.add("full", full, full)
    scores.add("empty", empty, empty)
    of_shifted = 1 - 80 / 1200  # 80 of 1200 background pixels are called lung
    assert scores.slices["shifted"]["specificity"] == pytest.approx(of_shifted)
    assert scores.slices["full"]["specificity"] is None
    summary = scores.summarize()
    assert summary["specificity_mean"] == pytest.approx((of_shifted + 1) / 2)
    low, high = summary["specificity_mean_ci95"]
    assert low == pytest.approx(of_shifted) and high == 1.0
    assert summary_scores()[-1].key == "specificity_mean"
