"""The tables of the page, as rows of text for its template."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lungseg_jax.evaluation.results import CHOICE_SCORES, labelled_scores, worst_first
from lungseg_jax.metrics.registry import METRICS, label_with_unit, summary_scores
from lungseg_jax.reporting.templates import NOT_AVAILABLE, number


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text whose first column holds the row headers.

    Attributes:
      columns: the headers, one per column.
      rows: the cells of each row, as many as there are columns.
      last_is_text: whether the last column is prose, which is left-aligned.
      last_row_stands_out: whether the last row is the one that matters.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    last_is_text: bool = False
    last_row_stands_out: bool = False


def score_table(evaluation: Mapping[str, Any]) -> Table:
    """Return the scores of the masks that `predict` writes, with intervals."""
    return Table(
        ("score", "value", "95% interval", "meaning"),
        list(_score_rows(evaluation)),
        last_is_text=True,
    )


def choice_table(evaluation: Mapping[str, Any]) -> Table:
    """Compare snapshots, combinations of them, and the masks `predict` writes."""
    rows = [
        (label, *(number(scores[key]) for key in CHOICE_SCORES))
        for label, scores in labelled_scores(evaluation)
    ]
    columns = ("members", *CHOICE_SCORES.values())
    return Table(columns, rows, last_row_stands_out=True)


def slice_table(evaluation: Mapping[str, Any]) -> Table:
    """List all slices, worst first."""
    slices = evaluation["slices"]
    columns = _slice_columns(evaluation["unit"])
    rows = [
        (name, *(_cell(slices[name].get(c.key), c.format) for c in columns))
        for name in worst_first(slices, only_scored=False)
    ]
    return Table(("slice", *(column.label for column in columns)), rows)


def _score_rows(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    scores = evaluation["ensemble"]
    for score in summary_scores():
        if score.key not in scores:  # a metric that is newer than the evaluation
            continue
        low, high = scores[f"{score.key}_ci95"]
        label = label_with_unit(score, evaluation["unit"])
        interval = f"{number(low)} to {number(high)}"
        yield label, number(scores[score.key]), interval, score.meaning


class _Column(NamedTuple):
    key: str  # in a slice's row
    label: str
    format: str = ""


def _slice_columns(unit: str) -> list[_Column]:
    columns = []
    for metric in METRICS.values():
        if metric.in_slice_table:
            label = label_with_unit(metric, unit)
            columns.append(_Column(metric.name, label, metric.format))
    return [
        *columns,
        _Column("expected_iou", "expected IoU", ".3f"),
        _Column("disagreement", "disagreement", ".1%"),
        _Column("review", "review"),
    ]


def _cell(value: float | bool | None, format: str) -> str:
    if isinstance(value, bool):
        return "review" if value else ""
    return NOT_AVAILABLE if value is None else f"{value:{format}}"
