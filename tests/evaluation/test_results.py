"""Labels, order and summary of an evaluation."""

import pytest

from lungseg_jax.evaluation.results import (
    format_summary,
    labelled_scores,
    scores_of,
    worst_first,
)

SCORES = {
    "iou_pooled": 0.9,
    "iou_mean": 0.8,
    "iou_min": None,
    "dice_mean": 0.85,
    "iou_pooled_ci95": [0.7, 0.95],
}


@pytest.fixture
def evaluation():
    choices = {
        "all": ["10", "20"],
        "last": ["20"],
        "average": ["average"],
        "all+flips": ["10", "20"],
    }
    return {
        "n": 3,
        "threshold": 0.5,
        "flips": False,
        "intervals_over": "slices",
        "members": {"10": SCORES, "20": SCORES},
        "choices": {c: {"members": m, "scores": SCORES} for c, m in choices.items()},
        "ensemble": SCORES,
        "uncertainty": {"flagged": 2, "flagged_low": 1, "n_low": 1, "low_iou": 0.95},
    }


def test_a_choice_of_one_snapshot_has_no_second_row(evaluation):
    labels = [label for label, _ in labelled_scores(evaluation)]
    assert labels == [
        "snapshot 10",
        "snapshot 20",
        "all (2)",
        "average (1)",
        "all+flips (2)",
        "as predict writes it",
    ]


def test_the_average_alone_is_no_snapshot(evaluation):
    evaluation["members"] = {"average": SCORES}
    assert labelled_scores(evaluation)[0] == ("average", SCORES)


def test_evaluations_of_earlier_versions_are_labelled(evaluation):
    evaluation["choices"]["best"] = {"members": ["10"], "scores": SCORES}
    evaluation["choices"]["greedy"] = {"members": ["10", "20"], "scores": SCORES}
    labels = [label for label, _ in labelled_scores(evaluation)]
    assert "greedy (2)" in labels and "best (1)" not in labels


def test_worst_first():
    slices = {"a": {"iou": 0.9}, "b": {"iou": None}, "c": {"iou": 0.0}}
    assert worst_first(slices, only_scored=True) == ["c", "a"]
    assert worst_first(slices, only_scored=False) == ["c", "a", "b"]


def test_format_summary(evaluation):
    lines = format_summary(evaluation).splitlines()
    assert lines[1].split() == [
        *("snapshot", "10", "0.9000", "0.8000", "-", "0.8500"),
        *("0.7000", "to", "0.9500"),
    ]
    assert lines[-2] == "3 slices at full size, threshold 0.5"
    assert "2 of 3 flagged for review, including 1 of 1" in lines[-1]
    evaluation["uncertainty"]["flagged"] = None
    evaluation |= {"trained_on": 2, "flips": True}
    lines = format_summary(evaluation).splitlines()
    assert lines[-2].endswith("averaged over mirror images")
    assert lines[-1].startswith("the run was trained on 2 of these 3 slices")
    evaluation["intervals_over"] = "patients"
    assert "no intervals" not in format_summary(evaluation)
    evaluation["ensemble"] = SCORES | {"iou_pooled_ci95": [None, None]}
    text = format_summary(evaluation)
    assert "no intervals: they need" in text and "- to -" not in text


def test_an_evaluation_is_reduced_to_the_members_of_a_choice(evaluation):
    assert scores_of(evaluation, ["10", "20"]) is evaluation
    last = SCORES | {"iou_pooled": 0.87}
    evaluation["choices"]["last"]["scores"] = last
    assert scores_of(evaluation, ["20"]) == {
        "n": 3,
        "threshold": 0.5,
        "intervals_over": "slices",
        "ensemble": last,
        "postprocessing": None,
    }
    assert scores_of(evaluation, ["10"]) is None
