"""The tables of the page, as HTML."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from lungseg_jax.evaluation.results import worst_first
from lungseg_jax.inference.postprocessing import POSTPROCESSING
from lungseg_jax.metrics.registry import summary_scores

COLUMNS = {
    "iou": ("IoU", ".4f"),
    "expected_iou": ("expected", ".3f"),
    "review": ("review", ""),
    "dice": ("Dice", ".4f"),
    "nsd": ("NSD", ".3f"),
    "hd95": ("HD95", ".1f"),
    "area_error": ("area error", "+.1%"),
    "disagreement": ("disagreement", ".1%"),
}


def of_metrics(evaluation: Mapping) -> str:
    """The scores of what `predict` writes, with their intervals."""
    scores, unit = evaluation["ensemble"], evaluation["unit"]
    rows = []
    for score in summary_scores():
        low, high = scores[f"{score.key}_ci95"]
        value, interval = number(scores[score.key]), f"{number(low)} to {number(high)}"
        label = score.label_with_unit(unit)
        rows.append(("", (label, value, interval, score.meaning)))
    return _table(("", "value", "95 % interval", ""), rows, style="words")


def of_choices(evaluation: Mapping) -> str:
    """Snapshots, choices of them, and what `predict` writes."""
    keys = ("iou_pooled", "iou_mean", "iou_min", "dice_mean")
    labelled = [
        (f"snapshot {step}", step, s) for step, s in evaluation["members"].items()
    ]
    for choice, found in evaluation["choices"].items():
        labelled.append((choice, ", ".join(found["members"]), found["scores"]))
    rows = [
        ("", (label, members, *(number(s[k]) for k in keys)))
        for label, members, s in labelled
    ]
    mine = evaluation["ensemble"]
    final = ("as predict writes it", "", *(number(mine[k]) for k in keys))
    return _table(("", "members", *keys), [*rows, ("last", final)])


def of_clean_up(evaluation: Mapping) -> str:
    """Each clean-up; the chosen one stands out."""
    keys = ("iou_pooled", "iou_mean", "iou_min")
    chosen = evaluation["postprocessing"]["chosen"]
    rows = [
        (
            "last" if name == chosen else "",
            (
                name,
                *(number(s[k]) for k in keys),
                ("chosen; " if name == chosen else "") + POSTPROCESSING[name],
            ),
        )
        for name, s in evaluation["postprocessing"]["scores"].items()
    ]
    return _table(("", *keys, ""), rows, style="words")


def of_slices(slices: Mapping[str, Mapping]) -> str:
    """A row for each slice, worst first."""
    rows = []
    for name in worst_first(slices, only_scored=False):
        cells = [
            _cell(slices[name][key], format) for key, (_, format) in COLUMNS.items()
        ]
        rows.append(("", (name, *cells)))
    return _table(("slice", *(label for label, _ in COLUMNS.values())), rows)


def _table(
    head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], *, style: str = ""
) -> str:
    """Of cells of text; the table and each row have a class."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        f'<tr class="{of_row}">'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for of_row, cells in rows
    )
    return f'<table class="{style}"><tr>{top}</tr>{body}</table>'


def _cell(value: Any, format: str) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "review" if value else ""
    return f"{value:{format}}"


def number(value: float | None) -> str:
    """Of four digits, or "none"."""
    return "none" if value is None else f"{value:.4f}"
