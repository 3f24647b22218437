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


def trust(evaluation: Mapping[str, Any]) -> Figure:
    """Left: the IoU that was expected against the true one. Right: risk over coverage."""
    doubts = evaluation["uncertainty"]
    scored = [one for one in evaluation["slices"].values() if one["iou"] is not None]
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    expected = np.array([one["expected_iou"] for one in scored])
    iou = np.array([one["iou"] for one in scored])
    low = iou < doubts["low_iou"]
    for chosen, color, label in (
        (~low, LINE, "slice"),
        (low, STANDING_OUT, f"IoU below {doubts['low_iou']:g}"),
    ):
        left.plot(expected[chosen], iou[chosen], "o", color=color, ms=5, label=label)
    both = np.concatenate([expected, iou, [1.0]])
    margin = max(0.02 * np.ptp(both), 1e-3)
    edge = [both.min() - margin, 1 + margin]
    left.plot(edge, edge, color=PALE, lw=1, label="as expected")
    limit = doubts["review_below"]
    if limit is not None:
        left.axvspan(min(edge[0], limit), limit, color=STANDING_OUT, alpha=0.12, lw=0)
        left.axvline(
            limit, color=STANDING_OUT, lw=1, ls="--", label="review left of this"
        )
    left.set(
        xlabel="expected IoU", ylabel="IoU against the label", xlim=edge, ylim=edge
    )
    left.legend(frameon=False, fontsize=8, loc="upper left")
    curve = doubts.get("risk_coverage")
    if curve:
        right.plot(curve["coverage"], curve["risk"], color=LINE)
        right.axhline(curve["risk"][-1], color=PALE, lw=1, ls="--")
    right.set_xlabel("coverage: share of the slices kept, surest first")
    right.set_ylabel("risk: mean of 1 - IoU of those kept")
    right.set_ylim(bottom=0)
    _plain(left, right)
    return figure


def reliability(calibration: Mapping[str, Any]) -> Figure:
    """Share of lung against the probability that was given, before and after."""
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    titles = {"image": "all pixels", "boundary": "within 5 pixels of the boundary"}
    for axes, (where, title) in zip(
        figure.subplots(1, 2, sharey=True), titles.items(), strict=True
    ):
        axes.plot([0, 1], [0, 1], color=PALE, lw=1)
        for label, color in (("before", PALE), ("after", LINE)):
            found = calibration[where][label]
            points = [
                (c, f)
                for c, f in zip(
                    found["reliability"]["confidence"],
                    found["reliability"]["frequency"],
                    strict=True,
                )
                if c is not None
            ]
            ece = found["ece"]
            name = label if ece is None else f"{label}: ECE {ece:.4f}"
            if points:
                axes.plot(
                    *zip(*points, strict=True), "o-", ms=4, color=color, label=name
                )
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("probability of lung")
        axes.legend(frameon=False, fontsize=9, loc="upper left")
        axes.set_aspect("equal")
        _plain(axes)
    figure.axes[0].set_ylabel("share that is lung")
    return figure


def _plain(*all_axes) -> None:
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
