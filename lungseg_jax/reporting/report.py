"""The report of a run: its page, the figures on it, and a CSV file of its slices."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.data.io.images import write_picture
from lungseg_jax.data.pairs import Slice
from lungseg_jax.evaluation.results import labelled_scores, worst_first
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.overlay import error_overlay, gray, overlay, resize_to_fit
from lungseg_jax.inference.segmenter import Segmentation
from lungseg_jax.reporting import figures, page
from lungseg_jax.runtime.files import write_text

SHOWN = 6  # bad slices
SIDE = 512  # the longer one of a picture, pixels


def write_report(
    folder: Path,
    evaluation: Mapping[str, Any],
    *,
    title: str,
    window_hu: tuple[float, float],
    read: Callable[[Sequence[str]], Iterable[Slice]],
    segment: Callable[[Iterable[np.ndarray]], Iterator[Segmentation]],
    rows: Sequence[Mapping] = (),
) -> None:
    """Writes PNG pictures and figures, slices.csv and, last, index.html.

    Args:
      folder: of the report; made where it is not there.
      evaluation: what `scoring.score` returned.
      title: the heading.
      window_hu: pixel values shown as black and as white.
      read: the slices of some names.
      segment: what the ensemble finds in images.
      rows: of metrics.jsonl, where the page is to show the training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    slices = evaluation["slices"]
    cases = _choose(slices, evaluation["uncertainty"]["low_iou"])
    asked = zip_with_predictions(
        segment, read(list(cases)), image_of=attrgetter("image")
    )
    for case, (one, found) in enumerate(asked):
        for kind, picture in _pictures(one, found, window_hu).items():
            write_picture(
                folder / page.picture_of(case, kind), resize_to_fit(picture, SIDE)
            )
    drawn = {
        "scores": figures.scores(labelled_scores(evaluation)),
        "expected": figures.expected(evaluation),
        "risk": figures.risk(evaluation),
    }
    for where, pixels in page.PIXELS.items():
        found = evaluation["calibration"][where]
        drawn[f"calibration_{where}"] = figures.reliability(found, pixels)
    if rows:
        drawn["curves"] = figures.curves(rows)
    for name, figure in drawn.items():
        figures.save(figure, folder / f"{name}.png")
    write_text(folder / "slices.csv", _csv(slices))
    text = page.render_page(evaluation, title, cases=cases, trained=bool(rows))
    write_text(folder / "index.html", text)


def _choose(slices: Mapping[str, Mapping], low_iou: float) -> dict[str, str]:
    """The reason to show a slice, by its name."""
    scored = worst_first(slices, only_scored=True)
    least_sure = min(slices, key=lambda name: slices[name]["expected_iou"])
    reasons = [(name, "worst") for name in scored[:1]]
    reasons += [(n, "bad") for n in scored[1:SHOWN] if slices[n]["iou"] < low_iou]
    reasons += [(least_sure, "least sure")]
    reasons += [(name, "median") for name in scored[len(scored) // 2 :][:1]]
    reasons += [(name, "best") for name in scored[-1:]]
    chosen: dict[str, str] = {}
    for name, why in reasons:
        chosen.setdefault(name, why)
    return chosen


def _pictures(one: Slice, found: Segmentation, window_hu) -> dict[str, np.ndarray]:
    """By kind, the keys of `page.PICTURES`."""
    truth, doubt = one.mask > 0, found.uncertainty
    return {
        "mask": error_overlay(one.image, found.mask, truth, window_hu=window_hu),
        "doubt": overlay(one.image, found.mask, doubt, window_hu=window_hu),
        "slice": gray(one.image, window_hu=window_hu),
    }


def _csv(slices: Mapping[str, Mapping]) -> str:
    text = io.StringIO()
    names = worst_first(slices, only_scored=False)
    columns = ["slice", *slices[names[0]]]
    rows = csv.DictWriter(text, columns, lineterminator="\n")
    rows.writeheader()
    rows.writerows({"slice": name} | dict(slices[name]) for name in names)
    return text.getvalue()
