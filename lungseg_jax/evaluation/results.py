"""Views of evaluation.json that the command line and the page share."""

from collections.abc import Mapping, Sequence
from typing import Any

from lungseg_jax.inference.ensemble.members import AVERAGE, REMOVED
from lungseg_jax.runtime.errors import pluralize

SETTINGS = (  # of all scores of an evaluation
    "schema_version",
    "n",
    "split",
    "split_seed",
    "threshold",
    "unit",
    "tolerance",
    "intervals_over",
)
# Scores by which members and their combinations are compared.
CHOICE_SCORES = {
    "iou_pooled": "IoU, pooled",
    "iou_mean": "IoU, mean",
    "iou_min": "IoU, worst slice",
    "dice_mean": "Dice, mean",
}
# Measures of doubt about a mask; a lower expected IoU is more doubt.
DOUBTS = {
    "expected_iou": "expected IoU",
    "disagreement": "disagreement of the members",
    "uncertainty": "mean entropy",
    "mutual_information": "mean mutual information",
}


def labelled_scores(evaluation: Mapping) -> list[tuple[str, Mapping]]:
    """Return labels with scores: snapshots, choices, and what `predict` writes."""
    rows = [
        (name if name == AVERAGE else f"snapshot {name}", scores)
        for name, scores in evaluation["members"].items()
    ]
    for choice, result in evaluation["choices"].items():
        n = len(result["members"])
        if choice in ("last", *REMOVED) and n == 1:
            continue  # it is one of the snapshots
        rows.append((f"{choice} ({n})", result["scores"]))
    return [*rows, ("as predict writes it", evaluation["ensemble"])]


def scores_of(
    evaluation: Mapping[str, Any], members: Sequence[str]
) -> Mapping[str, Any] | None:
    """Restrict an evaluation to some of its members.

    Args:
      evaluation: content of evaluation.json.
      members: their names.

    Returns:
      The evaluation itself if it is of these members. Otherwise its SETTINGS and, as
      "ensemble", the scores of these members, which are of masks without clean-up; None if
      they were not scored together.
    """
    if list(evaluation["members"]) == list(members):
        return evaluation
    for choice, result in evaluation["choices"].items():
        if choice not in REMOVED and result["members"] == list(members):
            return settings_of(evaluation) | {
                "ensemble": result["scores"],
                "postprocessing": None,
            }
    return None


def settings_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the SETTINGS that an evaluation has."""
    return {key: evaluation[key] for key in SETTINGS if key in evaluation}


def worst_first(slices: Mapping[str, Mapping], *, only_scored: bool) -> list[str]:
    """Return the names of slices by increasing IoU; those without one come last.

    Args:
      slices: rows by name.
      only_scored: leave out slices without an IoU, which are empty in both masks.
    """

    def by_iou(name):
        iou = slices[name]["iou"]
        return 2.0 if iou is None else iou

    kept = [n for n in slices if not only_scored or slices[n]["iou"] is not None]
    return sorted(kept, key=by_iou)


def format_summary(evaluation: Mapping) -> str:
    """Format the scores of snapshots, choices and the ensemble as lines of text."""
    lines = [*_table(labelled_scores(evaluation)), *_conditions(evaluation)]
    n = evaluation["n"]
    doubts = evaluation["uncertainty"]
    if doubts["flagged"] is not None:
        lines.append(
            f"{doubts['flagged']} of {n} flagged for review, including "
            f"{doubts['flagged_low']} of {doubts['n_low']} with an IoU below "
            f"{doubts['low_iou']:g}"
        )
    if evaluation.get("trained_on"):
        lines.append(
            f"the run was trained on {evaluation['trained_on']} of these {n} slices: "
            "the scores say little about others"
        )
    return "\n".join(lines)


def format_folds(result: Mapping) -> str:
    """Format the scores of a cross-validation, and of each fold, as lines of text."""
    rows = [(fold["run"], fold["scores"]) for fold in result["folds"]]
    rows.append(("all, each scored once", result["ensemble"]))
    return "\n".join([*_table(rows), *_conditions(result)])


def _table(rows: Sequence[tuple[str, Mapping]]) -> list[str]:
    """Format scores by label, below a header."""
    header = "".join(f"{column:>12}" for column in CHOICE_SCORES)
    lines = [f"{'':22}{header}   95 % of iou_pooled"]
    for label, scores in rows:
        cells = "".join(f"{_number(scores[column]):>12}" for column in CHOICE_SCORES)
        interval = " to ".join(map(_number, scores["iou_pooled_ci95"]))
        if None in scores["iou_pooled_ci95"]:
            interval = "-"
        lines.append(f"{label:22}{cells}   {interval}")
    return lines


def _conditions(evaluation: Mapping) -> list[str]:
    """Say what was scored, and why intervals are missing."""
    n, threshold = evaluation["n"], evaluation["threshold"]
    mirrored = ", averaged over mirror images" if evaluation.get("flips") else ""
    lines = [f"{pluralize(n, 'slice')} at full size, threshold {threshold:g}{mirrored}"]
    has_interval = evaluation["ensemble"]["iou_pooled_ci95"][0] is not None
    if evaluation["intervals_over"] == "patients" and not has_interval:
        lines.append("no intervals: they need the slices of two patients")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
