"""The report of an evaluation: index.html, its pictures and figures, and slices.csv."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.data.io.images import write_picture
from lungseg_jax.data.pairs import Slice
from lungseg_jax.evaluation.results import labelled_scores, worst_first
from lungseg_jax.evaluation.slice_scores import write_scores
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.overlay import (
    encode_jpeg,
    error_overlay,
    gray,
    overlay,
    resize_to_fit,
    stretch,
)
from lungseg_jax.inference.segmentation import Segmentation
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.metrics.calibration import BAND
from lungseg_jax.reporting import figures
from lungseg_jax.reporting.index_page import is_own_page
from lungseg_jax.reporting.page import PICTURES, Case, render_page
from lungseg_jax.runtime.files import atomic_write, write_text
from lungseg_jax.training.run_folder import RunFolder

BAD_SHOWN = 6
SIDE = 512  # longer side of a picture, in pixels


def write_report(
    folder: Path,
    evaluation: Mapping[str, Any],
    segmenter: LungSegmenter,
    *,
    read: Callable[[Sequence[str]], Iterable[Slice]],
    title: str,
) -> None:
    """Write a report on labelled slices. The page, index.html, is written last.

    The page embeds its pictures and figures and can be sent on its own. They are also
    PNG files in the folder, together with slices.csv; those of an earlier report are
    replaced or removed. If the evaluation is of the run's own split, that is, if it has a
    "split", the page shows the training of the run.

    Args:
      folder: the destination, created if missing.
      evaluation: the result of `evaluator.evaluate`.
      segmenter: what was evaluated; it segments the slices that are shown.
      read: reads slices by their names.
      title: the heading.

    Raises:
      OSError, UserError: a file cannot be written or removed.
    """
    is_own_split = "split" in evaluation
    has_report = is_own_split or is_own_page(folder / "index.html")
    cases = _write_cases(folder, evaluation, segmenter, read)
    drawn = _draw_figures(evaluation)
    rows = RunFolder(segmenter.trained.path).read_metrics() if is_own_split else []
    if rows:
        drawn["curves"] = figures.to_png(figures.training_curves(rows))
    for name, png in drawn.items():
        with atomic_write(folder / f"{name}.png") as temporary:
            temporary.write_bytes(png)
    if has_report:
        _remove_outdated(folder, len(cases), drawn)
    slices_csv = folder / "slices.csv"
    slices = evaluation["slices"]
    names = worst_first(slices, only_scored=False)
    write_scores(slices_csv, {name: slices[name] for name in names})
    page = render_page(
        evaluation,
        title,
        tuning=segmenter.trained.tuning,
        cases=cases,
        figures=drawn,
        slices_csv=slices_csv.read_bytes(),
    )
    write_text(folder / "index.html", page)


def choose_cases(slices: Mapping[str, Mapping], low_iou: float) -> dict[str, str]:
    """Choose slices to show, each with the reason."""
    ranked = worst_first(slices, only_scored=True)
    least_certain = min(slices, key=lambda name: slices[name]["expected_iou"])
    reasons = [(name, "worst") for name in ranked[:1]]
    reasons += [
        (name, "bad") for name in ranked[1:BAD_SHOWN] if slices[name]["iou"] < low_iou
    ]
    reasons += [(least_certain, "least certain")]
    reasons += [(name, "median") for name in ranked[len(ranked) // 2 :][:1]]
    reasons += [(name, "best") for name in ranked[-1:]]
    chosen: dict[str, str] = {}
    for name, reason in reasons:
        chosen.setdefault(name, reason)
    return chosen


def _write_cases(folder, evaluation, segmenter, read) -> list[Case]:
    """Write case<i>_<picture>.png for each case."""
    window = segmenter.trained.window_hu
    reasons = choose_cases(evaluation["slices"], evaluation["uncertainty"]["low_iou"])
    segmented = zip_with_predictions(segmenter.stream_slices, read(list(reasons)))
    cases = []
    for i, (image_slice, segmentation) in enumerate(segmented):
        pictures = _pictures(image_slice, segmentation, window)
        for key, picture in pictures.items():
            write_picture(folder / f"case{i}_{key}.png", picture)
        embedded = {key: encode_jpeg(picture) for key, picture in pictures.items()}
        name = image_slice.name
        cases.append(Case(name, reasons[name], embedded))
    return cases


def _remove_outdated(folder: Path, count: int, drawn: Collection[str]) -> None:
    """Remove what an earlier report left of more cases, or of a training."""
    for file in folder.iterdir():
        case = re.fullmatch(rf"case(\d+)_({'|'.join(PICTURES)})\.png", file.name)
        is_curves = file.name == "curves.png" and "curves" not in drawn
        if is_curves or case and int(case[1]) >= count:
            file.unlink()


def _pictures(
    image_slice: Slice, segmentation: Segmentation, window_hu: tuple[float, float]
) -> dict[str, np.ndarray]:
    """Draw the pictures of a slice, by key of `page.PICTURES`."""
    image, mask = image_slice.image, segmentation.mask
    truth, uncertainty = image_slice.mask > 0, segmentation.uncertainty
    pictures = {
        "mask": error_overlay(image, mask, truth, window_hu=window_hu),
        "doubt": overlay(image, mask, uncertainty, window_hu=window_hu),
        "slice": gray(image, window_hu=window_hu),
    }
    square = {key: stretch(p, image_slice.aspect) for key, p in pictures.items()}
    return {key: resize_to_fit(picture, SIDE) for key, picture in square.items()}


def _draw_figures(evaluation: Mapping[str, Any]) -> dict[str, bytes]:
    """Draw the figures of an evaluation, as PNG files by name."""
    calibration = evaluation["calibration"]
    drawn = {
        "scores": figures.score_intervals(labelled_scores(evaluation)),
        "expected": figures.expected_iou(evaluation),
        "risk": figures.risk_coverage(evaluation),
        "calibration_image": figures.reliability(calibration["image"], "All pixels"),
        "calibration_boundary": figures.reliability(
            calibration["boundary"], f"Within {BAND} pixels of the boundary"
        ),
    }
    return {name: figures.to_png(figure) for name, figure in drawn.items()}
