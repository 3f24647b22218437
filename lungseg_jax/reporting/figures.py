"""The figures of a run's page; the only importer of matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STANDING_OUT, LINE, PALE = "#ff9f1c", "#3b4cc0", "#8a93a6"
WIDTH = 9  # inches of a figure


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG."""
    FigureCanvasAgg(figure).print_png(str(path))


def curves(rows: Sequence[Mapping]) -> Figure:
    """Loss above, learning rate below, over steps; snapshots marked in both.

    Args:
      rows: of metrics.jsonl.
    """
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    train = [row for row in rows if row["kind"] == "train"]
    steps = [row["step"] for row in train]
    above.plot(steps, [row["loss"] for row in train], color=LINE, label="training")
    checked = [row for row in rows if row["kind"] != "train" and "loss" in row]
    if checked:
        above.plot(
            [row["step"] for row in checked],
            [row["loss"] for row in checked],
            "o-",
            color=STANDING_OUT,
            markersize=4,
            label="validation",
        )
    below.plot(steps, [row["learning_rate"] for row in train], color=LINE)
    for i, row in enumerate(row for row in rows if row["kind"] == "snapshot"):
        for axes in (above, below):
            label = "snapshot" if i == 0 and axes is above else None
            axes.axvline(row["step"], color="#888", linestyle="--", lw=1, label=label)
    above.set_yscale("log")
    above.set_ylabel("loss")
    above.legend(frameon=False)
    below.set_ylabel("learning rate")
    below.set_xlabel("updates applied")
    _plain(above, below)
    return figure


def scores(labelled: Sequence[tuple[str, Mapping]]) -> Figure:
    """Pooled IoU with its interval, a row each.

    Args:
      labelled: what it is called and its scores; the last one stands out.
    """
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(labelled)), layout="constrained")
    axes = figure.subplots()
    for y, (_, found) in enumerate(reversed(labelled)):
        low, high = found["iou_pooled_ci95"]
        value = found["iou_pooled"]
        if value is None:
            continue
        color = STANDING_OUT if y == 0 else LINE
        if low is not None:
            axes.plot([low, high], [y, y], color=color, lw=2)
        axes.plot(value, y, "o", color=color)
        axes.annotate(
            f"{value:.4f}",
            (value, y),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(labelled)), [label for label, _ in reversed(labelled)])
    axes.set_ylim(-0.6, len(labelled) - 0.3)
    axes.set_xlabel("pooled IoU, line: 95 % of bootstrap resamples")
    _plain(axes)
    return figure


def expected(evaluation: Mapping[str, Any]) -> Figure:
    """The IoU of each slice against the one that was expected without its label."""
    doubts = evaluation["uncertainty"]
    scored = [one for one in evaluation["slices"].values() if one["iou"] is not None]
    figure, axes = _half()
    promised = np.array([one["expected_iou"] for one in scored])
    iou = np.array([one["iou"] for one in scored])
    low = iou < doubts["low_iou"]
    for chosen, color, label in (
        (~low, LINE, "slice"),
        (low, STANDING_OUT, f"IoU below {doubts['low_iou']:g}"),
    ):
        axes.plot(promised[chosen], iou[chosen], "o", color=color, ms=5, label=label)
    both = np.concatenate([promised, iou, [1.0]])
    margin = max(0.02 * np.ptp(both), 1e-3)
    edge = [both.min() - margin, 1 + margin]
    axes.plot(edge, edge, color=PALE, lw=1, label="as expected")
    limit = doubts["review_below"]
    if limit is not None:
        axes.axvspan(min(edge[0], limit), limit, color=STANDING_OUT, alpha=0.12, lw=0)
        label = "review left of this"
        axes.axvline(limit, color=STANDING_OUT, lw=1, ls="--", label=label)
    axes.set(
        xlabel="expected IoU", ylabel="IoU against the label", xlim=edge, ylim=edge
    )
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def risk(evaluation: Mapping[str, Any]) -> Figure:
    """Risk over coverage."""
    figure, axes = _half()
    curve = evaluation["uncertainty"].get("risk_coverage")
    if curve:
        axes.plot(curve["coverage"], curve["risk"], color=LINE)
        axes.axhline(curve["risk"][-1], color=PALE, lw=1, ls="--")
    axes.set_xlabel("coverage: share of the slices kept, surest first")
    axes.set_ylabel("risk: mean of 1 - IoU of those kept")
    axes.set_ylim(bottom=0)
    return figure


def reliability(found: Mapping[str, Mapping], title: str) -> Figure:
    """Share of lung against the probability that was given.

    Args:
      found: "before" and "after", each with "ece" and "reliability".
      title: of which pixels.
    """
    figure, axes = _half()
    axes.plot([0, 1], [0, 1], color=PALE, lw=1)
    for when, color in (("before", PALE), ("after", LINE)):
        curve, ece = found[when]["reliability"], found[when]["ece"]
        pairs = zip(curve["confidence"], curve["frequency"], strict=True)
        points = [(c, f) for c, f in pairs if c is not None]
        label = when if ece is None else f"{when}: ECE {ece:.4f}"
        if points:
            axes.plot(*zip(*points, strict=True), "o-", ms=4, color=color, label=label)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set(xlabel="probability of lung", ylabel="share that is lung", aspect="equal")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return figure


def _half():
    """One of two figures that stand side by side where there is room."""
    figure = Figure(figsize=(WIDTH / 2, 4.2), layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(*all_axes) -> None:
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
