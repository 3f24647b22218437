"""The report of a run: its page, the figures on it, and a CSV file of its slices."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax import figures, page
from lungseg_jax.data.pairs import Slice
from lungseg_jax.evaluation import labelled, worst_first
from lungseg_jax.run_folder import write_text
from lungseg_jax.segmenter import Segmentation


def write(
    folder: Path,
    evaluation: Mapping[str, Any],
    *,
    title: str,
    window_hu: tuple[float, float],
    read: Callable[[Sequence[str]], Iterable[Slice]],
    segment: Callable[[Iterable[np.ndarray]], Iterator[Segmentation]],
    rows: Sequence[Mapping] = (),
) -> None:
    """Writes PNG figures, slices.csv and, last, index.html.

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
    chosen = _choose(slices)
    names = list(dict.fromkeys(chosen.values()))
    images = [one.image for one in read(names)]
    found = {
        one.name: (one, answer)
        for one, answer in zip(read(names), segment(images), strict=True)
    }
    cases = {label: found[name] for label, name in chosen.items()}
    drawn = {
        "scores": figures.scores(labelled(evaluation)),
        "slices": figures.cases(cases, slices, window_hu),
        "trust": figures.trust(evaluation),
        "calibration": figures.reliability(evaluation["calibration"]),
    }
    if rows:
        drawn["curves"] = figures.curves(rows)
    for name, figure in drawn.items():
        figures.save(figure, folder / f"{name}.png")
    write_text(folder / "slices.csv", _csv(slices))
    write_text(folder / "index.html", page.text(evaluation, title, trained=bool(rows)))


def _choose(slices: Mapping[str, Mapping]) -> dict[str, str]:
    """Names by the reason to show them."""
    scored = worst_first(slices, only_scored=True)
    surest_last = sorted(slices, key=lambda name: slices[name]["expected_iou"])
    chosen = {"least sure": surest_last[0]}
    if scored:
        worst = {"worst": scored[0]}
        if len(scored) > 3:
            worst |= {"second worst": scored[1]}
        ranked = {"median": scored[len(scored) // 2], "best": scored[-1]}
        chosen = worst | chosen | ranked
    return chosen


def _csv(slices: Mapping[str, Mapping]) -> str:
    text = io.StringIO()
    names = worst_first(slices, only_scored=False)
    columns = ["slice", *slices[names[0]]]
    rows = csv.DictWriter(text, columns, lineterminator="\n")
    rows.writeheader()
    rows.writerows({"slice": name} | dict(slices[name]) for name in names)
    return text.getvalue()
