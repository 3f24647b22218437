"""The metrics of a predicted mask, in one table that drives every report.

A metric added to `METRICS` appears in evaluation.json, on the page, in `lungseg compare`
and on the model card. Read the table when it is used, not at import.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from lungseg_jax.metrics import overlap
from lungseg_jax.metrics.surface_distance import surface_scores


@dataclasses.dataclass(frozen=True, eq=False)
class MaskPair:
    """A predicted mask and the true one; shared intermediate results are cached.

    Attributes:
      predicted, truth: of a slice `[h w]` or of a volume `[d h w]`, boolean.
      spacing: mm between pixels or voxels, for each axis; None where it is unknown and
        distances are in pixels.
      tolerance: of NSD, in the same unit.
    """

    predicted: np.ndarray
    truth: np.ndarray
    spacing: tuple[float, ...] | None
    tolerance: float

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """(tp, fp, fn) of all pixels or voxels, see `overlap.count_pixels`."""
        counts = overlap.count_pixels(self.predicted, self.truth)
        return counts.reshape(-1, 3).sum(axis=0)

    @functools.cached_property
    def surface_distances(self) -> dict[str, float]:
        """ "nsd", "hd95" and "assd", see `surface_distance.surface_scores`."""
        return surface_scores(
            self.predicted,
            self.truth,
            spacing=self.spacing,
            tolerance=self.tolerance,
        )


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score of one slice or of a volume, and how it is shown.

    Attributes:
      name: the key in a slice's row, such as "iou"; the mean over slices is
        "<name>_mean".
      label: the name that is shown, such as "IoU".
      meaning: one phrase that explains it.
      compute: the score of a slice or volume; NaN where it is undefined.
      is_distance: whether it is in pixels or mm.
      format: of a cell in the page's table of slices.
      in_slice_table: whether it is a column of that table.
      volume_label: the label of a volume's score, where it is another.
    """

    name: str
    label: str
    meaning: str
    compute: Callable[[MaskPair], float]
    is_distance: bool = False
    format: str = ".4f"
    in_slice_table: bool = False
    volume_label: str = ""


# In the order in which they are shown.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="iou",
            label="IoU",
            meaning="mean over slices",
            compute=lambda pair: float(overlap.iou(pair.counts)),
            in_slice_table=True,
        ),
        Metric(
            name="dice",
            label="Dice",
            meaning="mean over slices",
            compute=lambda pair: float(overlap.dice(pair.counts)),
            in_slice_table=True,
        ),
        Metric(
            name="sensitivity",
            label="sensitivity",
            meaning="share of the true lung that is found",
            compute=lambda pair: float(overlap.sensitivity(pair.counts)),
        ),
        Metric(
            name="precision",
            label="precision",
            meaning="share of the mask that is lung",
            compute=lambda pair: float(overlap.precision(pair.counts)),
        ),
        Metric(
            name="nsd",
            label="NSD",
            meaning="share of the boundary within the tolerance",
            compute=lambda pair: pair.surface_distances["nsd"],
            format=".3f",
            in_slice_table=True,
        ),
        Metric(
            name="hd95",
            label="HD95",
            meaning="95 % of the boundary is nearer",
            compute=lambda pair: pair.surface_distances["hd95"],
            is_distance=True,
            format=".1f",
            in_slice_table=True,
        ),
        Metric(
            name="assd",
            label="ASSD",
            meaning="mean distance of the boundaries",
            compute=lambda pair: pair.surface_distances["assd"],
            is_distance=True,
            format=".1f",
        ),
        Metric(
            name="area_error",
            label="area error",
            meaning="signed, relative; + is too much",
            compute=lambda pair: float(overlap.area_error(pair.counts)),
            format="+.1%",
            in_slice_table=True,
            volume_label="volume error",
        ),
    )
}


def score_masks(pair: MaskPair) -> dict[str, float | None]:
    """Return the score by each metric of `METRICS`; None where it is undefined."""
    return {
        metric.name: overlap.none_if_nan(metric.compute(pair))
        for metric in METRICS.values()
    }


@dataclasses.dataclass(frozen=True)
class SummaryScore:
    """A score of a set of slices, as shown in a table of scores.

    Attributes:
      key: in the result of `overlap.summarize`; its interval is "<key>_ci95".
      label, meaning, is_distance: as in `Metric`.
    """

    key: str
    label: str
    meaning: str
    is_distance: bool = False


def summary_scores(*, of_volumes: bool = False) -> list[SummaryScore]:
    """The rows of a table of scores: pooled IoU first, then the mean of each metric."""
    pooled = SummaryScore(
        "iou_pooled", "IoU, pooled", "all pixels of all slices together"
    )
    means = (
        SummaryScore(
            f"{m.name}_mean",
            of_volumes and m.volume_label or m.label,
            m.meaning,
            m.is_distance,
        )
        for m in METRICS.values()
    )
    return [pooled, *means]


def label_with_unit(score: Metric | SummaryScore, unit: str, label: str = "") -> str:
    """Return the label of a score; for a distance with its unit, "px" or "mm".

    Args:
      score: a row of a table.
      unit: of distances.
      label: replaces that of the score.
    """
    label = label or score.label
    return f"{label}, {unit}" if score.is_distance else label
