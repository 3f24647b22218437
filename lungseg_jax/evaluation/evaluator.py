"""Scores of a trained ensemble on labelled slices: the content of evaluation.json."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lungseg_jax.data.metadata import SliceMetadata
from lungseg_jax.data.pairs import Slice
from lungseg_jax.evaluation.mask_scores import MaskScores
from lungseg_jax.evaluation.results import DOUBTS
from lungseg_jax.evaluation.slice_scores import SliceScores
from lungseg_jax.evaluation.tuning import LOW_IOU, mean_by_choice
from lungseg_jax.inference.confidence import Confidence
from lungseg_jax.inference.ensemble.members import AVERAGE, CHOICES
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.metrics import calibration, uncertainty
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.sharing import all_sum, own_share

TOLERANCE = 2.0  # of NSD: pixels, or mm where the spacing is known
FLIPS = "all+flips"


def evaluate(
    trained: TrainedEnsemble,
    slices: Iterable[Slice],
    total: int,
    *,
    flips: bool = False,
    patients: Sequence[str] | None = None,
    spacings: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """Return the content of evaluation.json for some labelled slices.

    Args:
      trained: the members. If the average is among them every choice is scored, and the
        ensemble is that of all snapshots; otherwise it is that of the members.
      slices: to score, in the units of the training, which are not checked; read once. In
        a job of several processes, the `own_share` of this one.
      total: their number, for all processes.
      flips: average over mirror images.
      patients: the patient of each slice, for the intervals.
      spacings: mm between rows and between columns, by the name of the slice.

    Returns:
      "threshold", "flips", "n", "unit", "tolerance", "intervals_over"; "members" {name:
      scores}; "ensemble", the scores of the masks that `predict` writes; "choices"
      {choice: {"members", "scores"}} of the masks before clean-up; "postprocessing"
      {"chosen", "scores"}, of the ensemble with "none" and with the chosen clean-up;
      "calibration", "uncertainty", "slices".
    """
    names = [name for name in trained.members if name != AVERAGE] or [AVERAGE]
    choices = _scored_choices(trained, names, flips=flips)
    stats = _EnsembleStats(LungSegmenter(trained.subset(names), flips=flips))
    member_scores, choice_scores = MaskScores(names), MaskScores(choices)
    with progress.bar("scoring", len(own_share(range(total)))) as bar:
        for prediction in _predict(trained, slices, names, choices, flips=flips):
            truth, masks = prediction.truth, prediction.members > trained.threshold
            member_scores.add(zip(names, masks, strict=True), truth)
            choice_scores.add(prediction.choices.items(), truth)
            stats.add(prediction, (spacings or {}).get(prediction.name))
            bar.update()
    for scores in (member_scores, choice_scores, stats):
        scores.merge()

    return {
        "threshold": trained.threshold,
        "flips": flips,
        "n": total,
        "unit": stats.scores.unit,
        "tolerance": TOLERANCE,
        "intervals_over": "slices" if patients is None else "patients",
        "members": member_scores.summarize(patients),
        "ensemble": stats.scores.summarize(patients),
        "choices": {
            choice: {"members": choices[choice], "scores": scores}
            for choice, scores in choice_scores.summarize(patients).items()
        },
        "postprocessing": stats.clean_up(patients),
        "calibration": stats.calibration(),
        "uncertainty": stats.uncertainty(),
        "slices": stats.scores.slices,
    }


def slice_metadata(table: SliceMetadata, names: Sequence[str]) -> dict[str, Any]:
    """Return the patients and spacings of some slices, as keywords of `evaluate`."""
    patients = [table.patients[name] for name in names] if table.patients else None
    return {"patients": patients, "spacings": table.spacings}


def _scored_choices(
    trained: TrainedEnsemble, names: Sequence[str], *, flips: bool
) -> dict[str, Sequence[str]]:
    """The members of each choice; empty if some members were asked for and not all.

    With `flips`, "all" is averaged over mirror images, so `FLIPS` would repeat it.
    """
    if not trained.tuning or list(names) == list(trained.members):
        return {}
    tuned = trained.tuning["choices"]
    choices = {
        choice: tuned[choice]["members"] for choice in CHOICES if choice in tuned
    }
    choices = {"all": list(names)} | choices
    return choices if flips else choices | {FLIPS: list(names)}


@dataclasses.dataclass(frozen=True)
class _Prediction:
    """The predictions of a slice.

    Attributes:
      name: of the slice.
      image: the slice `[h w]`.
      truth: its true mask `[h w]`, boolean.
      members: probabilities of the members of the ensemble, `[m h w]`.
      choices: the mask `[h w]` of each choice of members, without clean-up.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    members: np.ndarray
    choices: Mapping[str, np.ndarray]


def _predict(
    trained: TrainedEnsemble,
    slices: Iterable[Slice],
    names: Sequence[str],
    choices: Mapping[str, Sequence[str]],
    *,
    flips: bool,
) -> Iterator[_Prediction]:
    """Predict each slice; memory holds a batch of slices at a time.

    Args:
      trained: all members.
      slices: read once.
      names: the members of the ensemble.
      choices: members by choice, of `_scored_choices`.
      flips: average over mirror images in all choices.
    """
    position = {name: i for i, name in enumerate(trained.members)}
    rows = {
        choice: [position[name] for name in members]
        for choice, members in choices.items()
        if choice != FLIPS
    }
    flipped = itertools.repeat(None)
    if FLIPS in choices:
        slices, again = itertools.tee(slices)
        flipped = _probabilities(trained.subset(names), again, flips=True)
    predictions = _probabilities(trained, slices, flips=flips)
    for (image_slice, members), mirrored in zip(predictions, flipped, strict=False):
        means = mean_by_choice(members, rows)
        if mirrored:
            means[FLIPS] = mirrored[1].mean(axis=0)
        masks = {choice: mean > trained.threshold for choice, mean in means.items()}
        truth = trained.true_mask(image_slice.mask)
        of_ensemble = members[[position[name] for name in names]]
        yield _Prediction(
            image_slice.name, image_slice.image, truth, of_ensemble, masks
        )


def _probabilities(
    trained: TrainedEnsemble, slices: Iterable[Slice], *, flips: bool
) -> Iterator[tuple[Slice, np.ndarray]]:
    """Each slice with its members' probabilities `[m h w]`."""
    predict = trained.predictor(flips=flips).probabilities
    return zip_with_predictions(predict, slices)


class _EnsembleStats:
    """Accumulates scores, calibration and uncertainty of the masks that `predict` writes.

    Args:
      segmenter: the ensemble.

    Attributes:
      scores: of each slice, with its measures of doubt.
    """

    def __init__(self, segmenter: LungSegmenter):
        self.scores = SliceScores(TOLERANCE)
        self._segmenter = segmenter
        self._clean_ups = MaskScores(["none", segmenter.settings.postprocessing])
        self._histograms = {"image": 0, "boundary": 0}

    def add(self, prediction: _Prediction, spacing: tuple[float, float] | None) -> None:
        """Add a slice, with the spacing of its pixels where that is known."""
        truth, mean = prediction.truth, prediction.members.mean(axis=0)
        band = calibration.boundary_band(truth)
        self._histograms["image"] += calibration.logit_histogram(mean, truth)
        self._histograms["boundary"] += calibration.logit_histogram(mean, truth, band)
        segmentation = self._segmenter.combine(prediction.members, prediction.image)
        masks = {"none": mean > self._segmenter.trained.threshold}
        masks[self._segmenter.settings.postprocessing] = segmentation.mask
        self._clean_ups.add(masks.items(), truth)
        row = self.scores.add(prediction.name, segmentation.mask, truth, spacing)
        row |= _doubt(Confidence.of(segmentation))

    def merge(self) -> None:
        """Add the slices of the other processes of a job; all must call this."""
        self.scores.merge()
        self._clean_ups.merge()
        self._histograms = all_sum(self._histograms)

    def clean_up(self, groups: Sequence[str] | None) -> dict[str, Any]:
        """The overlap scores with and without clean-up, see `MaskScores.summarize`."""
        chosen = self._segmenter.settings.postprocessing
        return {"chosen": chosen, "scores": self._clean_ups.summarize(groups)}

    def calibration(self) -> dict[str, Any]:
        """Calibration before and after the temperature, of all and of boundary pixels."""
        settings = self._segmenter.settings
        temperatures = {"before": 1.0, "after": settings.temperature}
        is_tuned = settings.review_below is not None
        return {
            "temperature": settings.temperature,
            "fitted_on": "validation" if is_tuned else None,
        } | {
            pixels: {
                when: calibration.calibration_scores(histogram, temperature)
                | {
                    "reliability": calibration.reliability_diagram(
                        histogram, temperature
                    )
                }
                for when, temperature in temperatures.items()
            }
            for pixels, histogram in self._histograms.items()
        }

    def uncertainty(self) -> dict[str, Any]:
        """How well the measures of doubt find the slices of low IoU."""
        every = self.scores.slices.values()
        scored = [row for row in every if row["iou"] is not None]
        iou = np.array([row["iou"] for row in scored])
        is_low = iou < LOW_IOU
        doubt = {key: np.array([row[key] for row in scored]) for key in DOUBTS}
        doubt["expected_iou"] = -doubt["expected_iou"]  # a lower one is more doubt
        limit = self._segmenter.settings.review_below
        flagged = np.array([bool(row["review"]) for row in scored], bool)
        result = {
            "low_iou": LOW_IOU,
            "n_low": int(is_low.sum()),
            "auroc": {k: uncertainty.auroc(d, is_low) for k, d in doubt.items()},
            "review_below": limit,
            # Of all slices, also those that are empty in both masks.
            "flagged": None if limit is None else sum(row["review"] for row in every),
            "flagged_low": None if limit is None else int((flagged & is_low).sum()),
        }
        if scored:
            result["risk_coverage"] = uncertainty.risk_coverage(
                -doubt["expected_iou"], 1 - iou
            )
        return result


def _doubt(confidence: Confidence) -> dict[str, Any]:
    """The columns of a slice's row that need no label."""
    return {
        "expected_iou": confidence.expected_iou,
        "review": confidence.review,
        "disagreement": confidence.disagreement,
        "uncertainty": confidence.uncertainty_bits,
        "mutual_information": confidence.mutual_information_bits,
    }
