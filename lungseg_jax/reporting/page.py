"""The page of a report, index.html: what is good, what is bad, how far to trust it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lungseg_jax.evaluation.results import DOUBTS, worst_first
from lungseg_jax.inference import overlay
from lungseg_jax.inference.outputs import POSTPROCESSING
from lungseg_jax.reporting import tables
from lungseg_jax.reporting.templates import css_color, data_uri, number, render

PICTURES = {"mask": "errors", "doubt": "uncertainty", "slice": "slice"}
NAMED = 6  # bad slices listed on a card


@dataclasses.dataclass(frozen=True)
class Case:
    """A slice that is shown as an example.

    Attributes:
      name: of the slice.
      reason: why it is shown, such as "worst".
      pictures: JPEG files by key of `PICTURES`.
    """

    name: str
    reason: str
    pictures: Mapping[str, bytes]


def render_page(
    evaluation: Mapping[str, Any],
    title: str,
    *,
    tuning: Mapping[str, Any],
    cases: Sequence[Case],
    figures: Mapping[str, bytes],
    slices_csv: bytes,
) -> str:
    """Render the page as HTML that refers to no other file.

    Args:
      evaluation: the result of `evaluator.evaluate`.
      title: the heading.
      tuning: that of the ensemble; see `TrainedEnsemble`.
      cases: the slices to show.
      figures: PNG files by name: "expected", "risk", "scores", "calibration_image",
        "calibration_boundary" and, if the run is to be shown, "curves".
      slices_csv: the table of slices, offered as a download.
    """
    uncertainty = evaluation["uncertainty"]
    return render(
        "page.html",
        title=title,
        n=evaluation["n"],
        split=evaluation.get("split", "labelled"),
        split_seed=evaluation.get("split_seed"),
        trained_on=evaluation.get("trained_on"),
        threshold=f"{evaluation['threshold']:g}",
        unit=evaluation["unit"],
        tolerance=f"{evaluation['tolerance']:g}",
        intervals_over=evaluation["intervals_over"],
        low_iou=f"{uncertainty['low_iou']:g}",
        scores=evaluation["ensemble"],
        quality_verdict=_quality_verdict(evaluation),
        bad=_bad_slices(evaluation),
        trust=uncertainty | {"auroc": _auroc(uncertainty)},
        calibration=evaluation["calibration"],
        untuned=_untuned(tuning),
        clean_up=_clean_up(evaluation["postprocessing"]),
        ensemble_gain=_ensemble_gain(evaluation),
        cases=[_case(evaluation, case) for case in cases],
        figures={name: data_uri("image/png", png) for name, png in figures.items()},
        colors=_colors(),
        slice_table=tables.slice_table(evaluation),
        score_table=tables.score_table(evaluation),
        choice_table=tables.choice_table(evaluation),
        slices_csv=data_uri("text/csv", slices_csv),
    )


def _colors() -> dict[str, str]:
    """The colors of `overlay` as CSS."""
    colors = {
        "outline": overlay.OUTLINE,
        "missed": overlay.MISSED,
        "uncertain": overlay.UNCERTAIN,
    }
    return {name: css_color(bgr) for name, bgr in colors.items()}


def _quality_verdict(evaluation: Mapping[str, Any]) -> str:
    iou = evaluation["ensemble"]["iou_pooled"] or 0
    is_good = iou >= evaluation["uncertainty"]["low_iou"]
    return "good" if is_good else "bad"


def _bad_slices(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    slices, low_iou = evaluation["slices"], evaluation["uncertainty"]["low_iou"]
    ranked = worst_first(slices, only_scored=True)
    bad = [name for name in ranked if slices[name]["iou"] < low_iou]
    examples = (bad or ranked[:1])[:NAMED]
    return {
        "verdict": "bad" if bad else "good",
        "value": f"{len(bad)} of {len(ranked)}",
        "examples": ", ".join(
            f"{name}\N{NO-BREAK SPACE}{slices[name]['iou']:.3f}" for name in examples
        ),
        "more": max(len(bad) - NAMED, 0),
    }


def _auroc(uncertainty: Mapping[str, Any]) -> str:
    """How well each score finds bad slices; empty if that is undefined."""
    auroc = uncertainty["auroc"]
    if auroc["expected_iou"] is None:
        return ""
    labels = DOUBTS.items()
    return ", ".join(f"{label} {auroc[key]:.3f}" for key, label in labels)


def _untuned(tuning: Mapping[str, Any]) -> str:
    """Say why nothing was tuned, if that is so."""
    return "the run has no validation split" if tuning else "the run has not finished"


def _clean_up(postprocessing: Mapping[str, Any]) -> str:
    """Say which clean-up is applied and what it changes."""
    name, scores = postprocessing["chosen"], postprocessing["scores"]
    if name == "none":
        return "The masks are not cleaned up."
    steps = " and ".join(POSTPROCESSING.get(step, step) for step in name.split("+"))
    before, after = (number(scores[key]["iou_pooled"]) for key in ("none", name))
    effect = (
        f"leaves the pooled IoU at {after}"
        if before == after
        else f"changes the pooled IoU from {before} to {after}"
    )
    return f"The clean-up of the masks ({name}) {steps}; it {effect}."


def _ensemble_gain(evaluation: Mapping[str, Any]) -> float:
    members = [scores["iou_pooled"] or 0 for scores in evaluation["members"].values()]
    together = evaluation["postprocessing"]["scores"]["none"]["iou_pooled"] or 0
    return together - max(members)


def _case(evaluation: Mapping[str, Any], case: Case) -> dict[str, Any]:
    row = evaluation["slices"][case.name]
    iou = "no lung" if row["iou"] is None else f"IoU {row['iou']:.4f}"
    review = {True: ", flagged for review", False: ", not flagged", None: ""}
    return {
        "name": case.name,
        "reason": case.reason,
        "scores": f"{iou}, expected {row['expected_iou']:.3f}{review[row['review']]}",
        "pictures": [
            (data_uri("image/jpeg", case.pictures[key]), caption)
            for key, caption in PICTURES.items()
        ],
    }
