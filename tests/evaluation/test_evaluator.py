"""evaluation.json, against scores worked out from the masks themselves."""

import dataclasses
import json

import numpy as np
import pytest

from lungseg_jax.data.metadata import SliceMetadata
from lungseg_jax.data.pairs import Slice
from lungseg_jax.evaluation.evaluator import FLIPS, evaluate, slice_metadata
from lungseg_jax.evaluation.tuning import tune
from lungseg_jax.inference.ensemble.members import AVERAGE
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.metrics.surface_distance import surface_scores
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import init_variables
from lungseg_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def every(trained):
    """All members and their average, and what was decided on other slices."""
    average = init_variables(make_model(**trained.model), channels=1, seed=9)
    members = {**trained.members, AVERAGE: average}
    return dataclasses.replace(trained, members=members)


@pytest.fixture
def tuned(every, slices):
    tuning = tune(every, lambda: slices(4, seed=7), 4)
    return dataclasses.replace(every, tuning=tuning)


def iou(masks, truths):
    both = sum((m & t).sum() for m, t in zip(masks, truths, strict=True))
    return both / sum((m | t).sum() for m, t in zip(masks, truths, strict=True))


def test_every_score_is_that_of_its_masks(tuned, slices):
    some = list(slices(6))
    truths = [one.mask > 0 for one in some]
    found = evaluate(tuned, iter(some), 6)
    json.dumps(found, allow_nan=False)
    assert (found["n"], found["unit"], found["threshold"]) == (6, "px", 0.5)
    assert list(found["members"]) == ["10", "20", "30"]

    def masks_of(names, flips=False):
        outputs = tuned.only(names).ensemble(flips=flips)
        return [
            m.mean(axis=0) > 0.5 for m in outputs.probabilities(s.image for s in some)
        ]

    for name, scores in found["members"].items():
        assert scores["iou_pooled"] == pytest.approx(iou(masks_of([name]), truths))
    assert found["choices"].keys() == {"all", "last", "best", "greedy", AVERAGE, FLIPS}
    for choice, one in found["choices"].items():
        masks = masks_of(one["members"], flips=choice == FLIPS)
        assert one["scores"]["iou_pooled"] == pytest.approx(iou(masks, truths)), choice

    deployed = LungSegmenter(tuned.only(["10", "20", "30"]))
    answers = [deployed(one.image) for one in some]
    masks = [answer.mask for answer in answers]
    assert found["ensemble"]["iou_pooled"] == pytest.approx(iou(masks, truths))
    for one, answer in zip(some, answers, strict=True):
        row = found["slices"][one.name]
        distances = surface_scores(answer.mask, one.mask > 0, tolerance=2.0)
        assert row["hd95"] == pytest.approx(distances["hd95"])
        assert row["expected_iou"] == pytest.approx(answer.expected_iou, abs=1e-5)
        assert row["review"] == answer.review
        assert row["iou"] == pytest.approx(iou([answer.mask], [one.mask > 0]))
    assert found["postprocessing"]["chosen"] == deployed.decision.postprocessing
    chosen = found["postprocessing"]["scores"][deployed.decision.postprocessing]
    assert chosen["iou_pooled"] == found["ensemble"]["iou_pooled"]


def test_calibration_is_better_on_the_slices_it_was_fitted_on(every, slices):
    tuning = tune(every, lambda: slices(6), 6)
    found = evaluate(dataclasses.replace(every, tuning=tuning), slices(6), 6)[
        "calibration"
    ]
    assert found["fitted_on"] == "validation"
    assert found["temperature"] == tuning["choices"]["all"]["temperature"] != 1.0
    assert found["image"]["after"]["nll"] < found["image"]["before"]["nll"]
    assert found["image"]["before"]["n"] == 6 * 40 * 36
    assert 0 < found["boundary"]["before"]["n"] < found["image"]["before"]["n"]


def test_the_members_alone_where_one_was_asked_for(tuned, slices):
    found = evaluate(tuned.only(["30"]), slices(3), 3)
    assert found["choices"] == {} and list(found["members"]) == ["30"]
    average = evaluate(tuned.only([AVERAGE]), slices(3), 3)
    assert list(average["members"]) == [AVERAGE]


def test_doubts_find_what_is_wrong(tuned, slices):
    """AUROC is of these very slices; the flags count what they say they count."""
    found = evaluate(tuned, slices(8), 8)
    rows = found["slices"].values()
    doubts = found["uncertainty"]
    low = [row["iou"] < 0.95 for row in rows]
    assert doubts["n_low"] == sum(low)
    assert doubts["flagged"] == sum(row["review"] for row in rows)
    assert doubts["flagged_low"] == sum(
        row["review"] and one for row, one in zip(rows, low, strict=True)
    )
    curve = doubts["risk_coverage"]
    assert curve["risk"][-1] == pytest.approx(1 - np.mean([row["iou"] for row in rows]))


def test_millimetres_and_patients(tuned, slices):
    some = list(slices(4))
    names = [one.name for one in some]
    table = SliceMetadata(
        patients=dict(zip(names, "AABB", strict=True)),
        spacings={name: (2.0, 2.0) for name in names},
    )
    plain = evaluate(tuned, iter(some), 4)
    found = evaluate(tuned, iter(some), 4, **slice_metadata(table, names))
    assert (found["unit"], found["intervals_over"]) == ("mm", "patients")
    for name in names:
        pixels, mm = plain["slices"][name]["assd"], found["slices"][name]["assd"]
        assert mm == pytest.approx(2 * pixels)
    assert found["ensemble"]["iou_mean"] == plain["ensemble"]["iou_mean"]
    assert found["ensemble"]["iou_mean_ci95"] != plain["ensemble"]["iou_mean_ci95"]
    assert slice_metadata(SliceMetadata({}, {}), names) == {
        "patients": None,
        "spacings": {},
    }


def test_a_slice_without_lung_on_either_side(trained, slices):
    """Nothing above an unreachable threshold: empty masks, on an empty truth and not."""
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


def test_flags_of_slices_without_a_score_count(tuned, slices):
    (with_lung,) = slices(1)
    blank = Slice("blank", with_lung.image, np.zeros_like(with_lung.mask))
    unsure = dataclasses.replace(tuned, threshold=1.0)  # both masks are empty
    found = evaluate(unsure, iter([with_lung, blank]), 2)
    assert found["uncertainty"]["flagged"] == sum(
        row["review"] for row in found["slices"].values()
    )
    assert found["slices"]["blank"]["iou"] is None


def test_pictures_are_refused(trained):
    picture = Slice("p", np.full((8, 8), 9, np.uint8), np.zeros((8, 8), np.uint8))
    picture.image[0] = 200
    with pytest.raises(UserError, match="gray values"):
        evaluate(trained, iter([picture]), 1)
