"""Tuning on validation slices, against the same computed from all pixels."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from lungseg_jax.evaluation import tuning
from lungseg_jax.evaluation.tuning import LOW_IOU, tune
from lungseg_jax.inference.ensemble.members import AVERAGE
from lungseg_jax.inference.postprocessing import DEFAULT
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.metrics.uncertainty import review_threshold


@pytest.fixture(scope="module")
def every(every):
    """Without a tuning."""
    return dataclasses.replace(every, tuning={})


def pixels_of(trained, names, slices):
    """Mean probability and truth of all pixels together."""
    predictor = trained.subset(names).predictor()
    outputs = predictor.probabilities((s.image, 1.0) for s in slices)
    mean = np.concatenate([m.mean(axis=0).ravel() for m in outputs])
    return mean, np.concatenate([s.mask.ravel() > 0 for s in slices])


def iou(probability, truth):
    mask = probability > 0.5
    return (truth & mask).sum() / (truth | mask).sum()


def segmenter_of(trained, tuned, choice):
    """The segmenter that users of a choice get."""
    names = tuned["choices"][choice]["members"]
    return LungSegmenter(dataclasses.replace(trained, tuning=tuned).subset(names))


def limit_of(segmentations, truths):
    pairs = [
        (segmentation.expected_iou, iou(segmentation.mask, truth))
        for segmentation, truth in zip(segmentations, truths, strict=True)
    ]
    return pytest.approx(
        review_threshold(*np.transpose(pairs), low=LOW_IOU)["threshold"]
    )


def test_every_choice_is_scored_and_calibrated(every, slices):
    some = list(slices(5))
    found = tune(every, lambda: iter(some), 5)
    assert found["n"] == 5
    assert found["choices"].keys() == {"all", "last", AVERAGE}
    assert found["choices"]["all"]["members"] == ["10", "20", "30"]
    assert found["choices"]["last"]["members"] == ["30"]
    assert found["choices"][AVERAGE]["members"] == [AVERAGE]
    assert list(found["members"]) == ["10", "20", "30", AVERAGE]
    for name, score in found["members"].items():
        assert score == pytest.approx(iou(*pixels_of(every, [name], some)))
    for settings in found["choices"].values():
        p, truth = pixels_of(every, settings["members"], some)
        assert settings["iou_pooled"] == pytest.approx(iou(p, truth))

        def loss(t, p=p, truth=truth):
            q = np.clip(expit(logit(p.astype(float)) / t), 1e-12, 1 - 1e-12)
            return -np.where(truth, np.log(q), np.log(1 - q)).mean()

        direct = minimize_scalar(loss, bounds=(0.05, 20), method="bounded").x
        assert loss(settings["temperature"]) == pytest.approx(loss(direct), abs=1e-4)
        assert settings["review_below"] == settings["review"]["threshold"]
    assert found["postprocessing"] == {"chosen": DEFAULT}


def test_limits_of_review_are_those_of_the_masks_that_are_written(every, monkeypatch):
    """With the clean-up, which drops a speck and fluid, and the temperature of each."""
    rng = np.random.default_rng(0)
    names, predictions = list(every.members), []
    sharpness = np.array([1, 2, 3, 5])[:, None, None]
    for i in range(12):
        truth = np.zeros((40, 40), bool)
        truth[5:35, 5:25] = True
        z = np.where(truth, 2.0, -2.0) + rng.normal(0, 0.5, (4, 40, 40))
        z[:, 5 : 5 + i % 4, 5:25] = -1.0  # not found, of 30 rows
        z[:, 38, 36:38] = 2.0  # the speck
        image = np.where(truth, -700.0, 50.0)
        if i >= 8:
            image[26:35, 5:25] = 5.0
            truth[26:] = False
        probabilities = expit(z * sharpness).astype(np.float32)
        predictions.append((probabilities, truth, image))
    monkeypatch.setattr(tuning, "_Predictions", lambda trained, predict, read: read())
    tuned = tune(every, lambda: predictions, len(predictions))
    temperatures = {s["temperature"] for s in tuned["choices"].values()}
    assert len(temperatures) == len(tuned["choices"]) == 3
    for choice, settings in tuned["choices"].items():
        rows = [names.index(name) for name in settings["members"]]
        segmenter = segmenter_of(every, tuned, choice)
        found = [segmenter.combine(p[rows], image) for p, _, image in predictions]
        assert not any(s.mask[30].any() for s in found[8:])
        limit = limit_of(found, [truth for _, truth, _ in predictions])
        assert settings["review"]["n_low"] == 6
        assert settings["review_below"] == limit


def test_one_wrong_label_does_not_change_the_temperature_of_all(every, monkeypatch):
    """Lung and background are exchanged in one of twelve well segmented slices."""
    rng = np.random.default_rng(0)
    predictions = []
    for _ in range(12):
        truth = np.zeros((40, 40), bool)
        truth[10:30, 10:30] = True
        z = np.where(truth, 6.0, -6.0) + rng.normal(0, 2.5, (4, 40, 40))
        image = np.full((40, 40), -700.0)
        predictions.append((expit(z).astype(np.float32), truth, image))

    def temperature_and_flags(pairs):
        monkeypatch.setattr(tuning, "_Predictions", lambda *args: pairs)
        found = tune(every, lambda: iter(()), len(pairs))
        review = found["choices"]["all"]["review"]
        return found["choices"]["all"]["temperature"], review["flagged"], found

    right, _, plain = temperature_and_flags(predictions)
    members, truth, image = predictions[0]
    wrong = [(members, ~truth, image), *predictions[1:]]
    robust, flagged, found = temperature_and_flags(wrong)
    assert (plain["damped"], found["damped"]) == (0, 1)
    assert flagged <= 0.2
    monkeypatch.setattr(tuning.calibration, "outlier_weights", np.ones_like)
    followed, _, _ = temperature_and_flags(wrong)
    assert followed > 3 * robust  # unweighted, it would make all of them unsure
    assert right < robust < 1.5


def test_few_predictions_are_cached_and_many_computed_again(every, slices, monkeypatch):
    some, reads = list(slices(4)), []

    def read():
        reads.append(1)
        return iter(some)

    cached = tune(every, read, 4)
    assert len(reads) == 1
    monkeypatch.setattr(tuning, "CACHE_BYTES", 1)
    again = tune(every, read, 4)
    assert len(reads) == 4
    assert again == cached


def test_changed_slices_count_for_the_limit_of_review_only(every, slices):
    some, others = list(slices(4)), list(slices(6, seed=7))
    plain = tune(every, lambda: iter(some), 4)
    stressed = tune(every, lambda: iter(some), 4, stressed=others)
    both = tune(every, lambda: iter([*some, *others]), 10)
    pictures, changed = [*some, *others], []
    for choice, settings in stressed["choices"].items():
        for key in ("iou_pooled", "temperature"):
            assert settings[key] == plain["choices"][choice][key]
        counted = [
            found["choices"][choice]["review"]["n_low"] for found in (stressed, both)
        ]
        assert counted[0] == counted[1] >= plain["choices"][choice]["review"]["n_low"]
        segmenter = segmenter_of(every, stressed, choice)
        segmentations = segmenter.stream(s.image for s in pictures)
        limit = limit_of(segmentations, [s.mask > 0 for s in pictures])
        assert settings["review_below"] == limit
        changed.append(plain["choices"][choice]["review_below"] != limit)
    assert any(changed)
    assert stressed["members"] == plain["members"] and stressed["n"] == 4
    assert (stressed["stressed"], plain["stressed"]) == (6, 0)


def test_without_validation_nothing_is_tuned(every):
    found = tune(every, lambda: iter(()), 0)
    assert found["n"] == 0
    assert found["choices"].keys() == {"all", "last", AVERAGE}
    for settings in found["choices"].values():
        assert settings["temperature"] == 1.0 and settings["review_below"] is None
    assert found["postprocessing"]["chosen"] == DEFAULT


def test_validation_slices_without_lung(every, slices):
    """Both masks are empty: there is no score, and no temperature to fit."""
    blank = [dataclasses.replace(one, mask=0 * one.mask) for one in slices(3)]
    blind = dataclasses.replace(every, threshold=1.0)
    found = tune(blind, lambda: iter(blank), 3)
    json.dumps(found, allow_nan=False)
    assert found["choices"]["all"]["iou_pooled"] is None
    assert found["choices"]["all"]["temperature"] == 1.0
    assert all(s["review"]["n_low"] == 0 for s in found["choices"].values())
    assert found["postprocessing"]["chosen"] == DEFAULT


def test_one_snapshot_has_no_average(trained, slices):
    one = dataclasses.replace(trained.subset(["10"]), tuning={})
    found = tune(one, lambda: slices(3), 3)
    assert AVERAGE not in found["choices"]
    assert all(d["members"] == ["10"] for d in found["choices"].values())
