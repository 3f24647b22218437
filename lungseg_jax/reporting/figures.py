"""The figures of the page; the only module that imports matplotlib."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

HIGHLIGHT, LINE, PALE = "#ff9f1c", "#3b4cc0", "#8a93a6"
WIDTH = 9  # of a figure, inches
DPI = 150
NO_SCORES = "no slice has an IoU"  # neither the labels nor the masks show lung


def to_png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    figure.set_dpi(DPI)
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    return png.getvalue()


def training_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot loss and learning rate over steps, with the snapshots marked.

    Args:
      rows: the content of metrics.jsonl.
    """
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    train = [row for row in rows if row["kind"] == "train"]
    steps = [row["step"] for row in train]
    loss.plot(steps, [row["loss"] for row in train], color=LINE, label="training")
    validated = [row for row in rows if row["kind"] != "train" and "loss" in row]
    if validated:
        loss.plot(
            [row["step"] for row in validated],
            [row["loss"] for row in validated],
            "o-",
            color=HIGHLIGHT,
            markersize=4,
            label="validation",
        )
    rate.plot(steps, [row["learning_rate"] for row in train], color=LINE)
    for i, row in enumerate(row for row in rows if row["kind"] == "snapshot"):
        for axes in (loss, rate):
            label = "snapshot" if i == 0 and axes is loss else None
            axes.axvline(row["step"], color="#888", linestyle="--", lw=1, label=label)
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter("{x:g}")
    loss.yaxis.set_minor_formatter("")
    loss.set_ylabel("loss")
    loss.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    rate.set(xlabel="updates", ylabel="learning rate")
    _simplify(loss, rate)
    return figure


def score_intervals(labelled: Sequence[tuple[str, Mapping[str, Any]]]) -> Figure:
    """Plot pooled IoU with its interval, one row per label, the last highlighted.

    Args:
      labelled: labels with their scores.
    """
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(labelled)), layout="constrained")
    axes = figure.subplots()
    for y, (_, scores) in enumerate(reversed(labelled)):
        low, high = scores["iou_pooled_ci95"]
        value = scores["iou_pooled"]
        if value is None:
            continue
        color = HIGHLIGHT if y == 0 else LINE
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
    if all(scores["iou_pooled"] is None for _, scores in labelled):
        _say_why_empty(axes, "neither labels nor masks show lung")
    labels = [label for label, _ in reversed(labelled)]
    # A member's name can contain that of a folder, in which a $ does not start a formula.
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(-0.6, len(labelled) - 0.3)
    axes.set_xlabel("pooled IoU with its 95% bootstrap interval")
    _simplify(axes)
    return figure


def expected_iou(evaluation: Mapping[str, Any]) -> Figure:
    """Plot the IoU of each slice against the one expected without its label."""
    uncertainty = evaluation["uncertainty"]
    scored = [row for row in evaluation["slices"].values() if row["iou"] is not None]
    figure, axes = _half_width()
    expected = np.array([row["expected_iou"] for row in scored])
    iou = np.array([row["iou"] for row in scored])
    is_bad = iou < uncertainty["low_iou"]
    for shown, color, label in (
        (~is_bad, LINE, f"IoU at least {uncertainty['low_iou']:g}"),
        (is_bad, HIGHLIGHT, f"IoU below {uncertainty['low_iou']:g}"),
    ):
        if shown.any():
            axes.plot(expected[shown], iou[shown], "o", color=color, ms=5, label=label)
    if not scored:
        _say_why_empty(axes, NO_SCORES)
    values = np.concatenate([expected, iou, [1.0]])
    margin = max(0.02 * np.ptp(values), 1e-3)
    limits = [values.min() - margin, 1 + margin]
    axes.plot(limits, limits, color=PALE, lw=1, label="as expected")
    review = uncertainty["review_below"]
    if review is not None:
        left = min(limits[0], review)
        axes.axvspan(left, review, color=HIGHLIGHT, alpha=0.12, lw=0)
        label = "flagged to the left"
        axes.axvline(review, color=HIGHLIGHT, lw=1, ls="--", label=label)
    axes.set(xlabel="expected IoU", ylabel="measured IoU", xlim=limits, ylim=limits)
    axes.locator_params(nbins=5)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def risk_coverage(evaluation: Mapping[str, Any]) -> Figure:
    """Plot the mean error of the slices kept against the share kept."""
    figure, axes = _half_width()
    curve = evaluation["uncertainty"].get("risk_coverage")
    if curve:
        axes.plot(curve["coverage"], curve["risk"], color=LINE)
        axes.axhline(curve["risk"][-1], color=PALE, lw=1, ls="--", label="all slices")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    else:
        _say_why_empty(axes, NO_SCORES)
    axes.set_xlabel("share of the slices kept, most certain first")
    axes.set_ylabel("mean of 1 − IoU over the slices kept")
    axes.set_ylim(bottom=0)
    return figure


def reliability(calibration: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """Plot the share of lung among pixels against their predicted probability.

    Args:
      calibration: "before" and "after" temperature scaling, each with "ece" and
        "reliability".
      title: the pixels that are counted.
    """
    figure, axes = _half_width()
    axes.plot([0, 1], [0, 1], color=PALE, lw=1)
    for when, color in (("before", PALE), ("after", LINE)):
        curve, ece = calibration[when]["reliability"], calibration[when]["ece"]
        pairs = zip(curve["confidence"], curve["frequency"], strict=True)
        points = [(c, f) for c, f in pairs if c is not None]
        label = f"{when} scaling" + ("" if ece is None else f", ECE {ece:.4f}")
        if points:
            axes.plot(*zip(*points, strict=True), "o-", ms=4, color=color, label=label)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set(xlabel="probability of lung", ylabel="share that is lung", aspect="equal")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    else:
        _say_why_empty(axes, "no such pixels")
    return figure


def _half_width() -> tuple[Figure, Axes]:
    """Return one of two figures that are side by side if there is room."""
    figure = Figure(figsize=(WIDTH / 2, 4.2), layout="constrained")
    axes = figure.subplots()
    _simplify(axes)
    return figure, axes


def _say_why_empty(axes: Axes, reason: str) -> None:
    axes.text(0.5, 0.1, reason, transform=axes.transAxes, ha="center", fontsize=9)
    axes.set_xticks([])


def _simplify(*all_axes: Axes) -> None:
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
