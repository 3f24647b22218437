"""The figure of scores over levels, and a sheet of changed slices with outlines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .tables import THRESHOLD, format_level

WINDOW_HU = -1050, 350
TRUTH, PREDICTION = (80, 220, 0), (28, 159, 255)  # green, orange; blue first
TILE, LABEL = 240, 18
COLUMNS = 3  # of panels: the labels are legible on a page of 700 pixels


def draw_figure(path: Path, results: Mapping[str, Any]) -> None:
    """Write small multiples: a panel for each family, a line for each contestant."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    families = {
        name: family
        for name, family in results["families"].items()
        if len(family["levels"]) > 1
    }
    rows = -(-len(families) // COLUMNS)
    figure, axes = pyplot.subplots(
        rows,
        COLUMNS,
        figsize=(2.5 * COLUMNS, 2 * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.ravel()[len(families) :]:
        axis.axis("off")
    for axis, (name, family) in zip(axes.ravel(), families.items(), strict=False):
        _draw_panel(axis, name, family, [THRESHOLD, *results["runs"]])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), frameon=False
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def draw_tile(
    image: np.ndarray, truth: np.ndarray, predicted: np.ndarray | None, label: str
) -> np.ndarray:
    """Return a slice `[TILE + LABEL, TILE, 3]` with the outlines of two masks."""
    low, high = WINDOW_HU
    gray = np.clip((image.astype(np.float32) - low) / (high - low) * 255, 0, 255)
    scale = TILE / max(image.shape)
    size = [max(1, round(n * scale)) for n in image.shape[::-1]]
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    picture = cv2.resize(gray.astype(np.uint8), size, interpolation=smooth)
    picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    for mask, color in ((truth, TRUTH), (predicted, PREDICTION)):
        if mask is not None:
            area = cv2.resize(
                mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST
            )
            outlines, _ = cv2.findContours(area, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, outlines, -1, color, 1)
    tile = np.zeros((TILE + LABEL, TILE, 3), np.uint8)
    tile[LABEL : LABEL + size[1], : size[0]] = picture
    white = (255, 255, 255)
    cv2.putText(tile, label, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.37, white, 1)
    return tile


def write_sheet(path: Path, rows: Sequence[Sequence[np.ndarray]]) -> None:
    """Write tiles of equal size as a PNG file, a row for each family."""
    width = max(len(row) for row in rows)
    empty = np.zeros_like(rows[0][0])
    full = [np.hstack([*row, *[empty] * (width - len(row))]) for row in rows]
    path.write_bytes(cv2.imencode(".png", np.vstack(full))[1].tobytes())


def _draw_panel(axis, name: str, family: Mapping[str, Any], contestants) -> None:
    points = list(family["levels"])
    if family["neutral"] is not None:
        points.append(family["neutral"])
        points.sort(key=lambda point: point["level"])
    levels = [point["level"] for point in points]
    moderate = [i for i, level in enumerate(levels) if level in family["moderate"]]
    axis.axvspan(min(moderate) - 0.4, max(moderate) + 0.4, color="0.93", lw=0)
    for i, contestant in enumerate(contestants):
        rows = [point["scores"][contestant] for point in points]
        values = [_plotted(row.get("score")) for row in rows]
        style = (
            {"color": "0.3", "linestyle": "--"} if i == 0 else {"color": f"C{i - 1}"}
        )
        axis.plot(values, marker="o", markersize=3, label=contestant, **style)
        ends = np.array([row.get("score_ci95") or [np.nan, np.nan] for row in rows])
        if i:
            axis.fill_between(
                range(len(rows)), *ends.T.astype(float), color=style["color"], alpha=0.2
            )
    labels = [format_level(level, "") for level in levels]
    is_text = any(isinstance(level, str) for level in levels)
    axis.set_xticks(
        range(len(levels)),
        labels,
        fontsize=7,
        rotation=25 if is_text else 0,
        ha="right" if is_text else "center",
    )
    axis.tick_params(axis="y", labelsize=7)
    axis.set_title(name, fontsize=8)
    axis.set_xlabel(family["meaning"], fontsize=7)
    axis.set_ylim(*((0, 1.02) if family["has_lung"] else (0, None)))
    axis.set_ylabel("pooled IoU" if family["has_lung"] else "false / body", fontsize=7)
    axis.grid(alpha=0.3)


def _plotted(score: float | None) -> float:
    return np.nan if score is None else score
