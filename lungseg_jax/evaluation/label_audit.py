"""Labels that look wrong: they agree less with a mask than the network expects."""

import heapq
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.data.io.images import write_picture
from lungseg_jax.data.pairs import Slice
from lungseg_jax.evaluation.evaluator import TOLERANCE
from lungseg_jax.evaluation.slice_scores import SliceScores
from lungseg_jax.inference.contact_sheet import MAX_TILES, ContactSheet
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.overlay import error_overlay, stretch
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import pluralize
from lungseg_jax.runtime.files import csv_writer

SHORTFALL = 0.02  # from which a label is suspect
COLUMNS = (
    "slice",
    "suspect",
    "shortfall",
    "iou",
    "expected_iou",
    "sensitivity",
    "precision",
)
POOR = 0.9  # a median IoU below it says more about the network than about labels
SHOWN = 10  # lines of the summary


class LabelAudit:
    """Compares labels with the masks of networks that have not been trained on them.

    A network expects an IoU of each of its masks, without a label. The shortfall of a
    label is the expected IoU minus that of the label with the mask. A large one means that
    the label is wrong, or that the network is wrong and confident.

    Args:
      spacings: mm between rows and between columns, by the name of the slice.

    Attributes:
      scores: a row of each slice, with "expected_iou" and "shortfall", which is None where
        label and mask are both empty.
    """

    def __init__(self, spacings: Mapping[str, tuple[float, float]]):
        self.scores = SliceScores(TOLERANCE)
        self._spacings = spacings
        # The worst, as a heap: shortfall, text, picture.
        self._pictures: list[tuple[float, str, np.ndarray]] = []

    def add(self, segmenter: LungSegmenter, slices: Iterable[Slice], n: int) -> None:
        """Compare the labels of `n` slices with the masks of a segmenter."""
        trained, segment = segmenter.trained, segmenter.stream_slices
        with progress.bar("comparing", n) as bar:
            for image_slice, segmentation in zip_with_predictions(segment, slices):
                name, truth = image_slice.name, trained.true_mask(image_slice.mask)
                spacing = self._spacings.get(name)
                row = self.scores.add(name, segmentation.mask, truth, spacing)
                expected, shortfall = segmentation.expected_iou, None
                if row["iou"] is not None:
                    shortfall = expected - row["iou"]
                    picture = error_overlay(
                        image_slice.image,
                        segmentation.mask,
                        truth,
                        window_hu=trained.window_hu,
                    )
                    picture = stretch(picture, image_slice.aspect)
                    self._keep_worst(shortfall, f"{name}  {row['iou']:.3f}", picture)
                row |= {"expected_iou": expected, "shortfall": shortfall}
                bar.update()

    def write(self, folder: Path) -> None:
        """Write a table, and pictures of the slices with the largest shortfall.

        Args:
          folder: for labels.csv, with COLUMNS and a row for each slice; and labels.png,
            unless no slice has lung.

        Raises:
          UserError: a file cannot be written.
        """
        with csv_writer(folder / "labels.csv", COLUMNS) as rows:
            for name, row in ranked(self.scores.slices):
                cells = {column: row[column] for column in COLUMNS[2:]}
                suspect = "yes" if _is_suspect(row) else "no"
                rows.writerow({"slice": name, "suspect": suspect} | cells)
        sheet = folder / "labels.png"
        sheet.unlink(missing_ok=True)
        if self._pictures:
            worst = sorted(self._pictures, reverse=True)
            pictures = ContactSheet(len(worst))
            for _, text, picture in worst:
                pictures.add(picture, text)
            write_picture(sheet, pictures.picture())

    def _keep_worst(self, shortfall: float, text: str, picture: np.ndarray) -> None:
        heapq.heappush(self._pictures, (shortfall, text, picture))
        if len(self._pictures) > MAX_TILES:
            heapq.heappop(self._pictures)


def ranked(slices: Mapping[str, Mapping]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the rows of slices with their names, the largest shortfall first."""

    def rank(item):
        shortfall = item[1]["shortfall"]
        return -np.inf if shortfall is None else shortfall

    return sorted(slices.items(), key=rank, reverse=True)


def format_suspects(slices: Mapping[str, Mapping]) -> str:
    """Format the suspect labels among the rows of slices as lines of text."""
    labels = pluralize(len(slices), "label")
    suspects = [(name, row) for name, row in ranked(slices) if _is_suspect(row)]
    if not suspects:
        return f"none of {labels} is suspect"
    lines = [f"{len(suspects)} of {labels} suspect:", f"{'IoU':>10}{'expected':>10}"]
    for name, row in suspects[:SHOWN]:
        lines.append(f"{row['iou']:10.3f}{row['expected_iou']:10.3f}   {name}")
    if len(suspects) > SHOWN:
        lines.append(f"and {len(suspects) - SHOWN} more")
    median = np.median(
        [row["iou"] for row in slices.values() if row["iou"] is not None]
    )
    if median < POOR:
        lines.append(
            f"the masks are poor (median IoU {median:.2f}), so these may be errors of the "
            "network"
        )
    return "\n".join(lines)


def _is_suspect(row: Mapping[str, Any]) -> bool:
    return row["shortfall"] is not None and row["shortfall"] >= SHORTFALL
