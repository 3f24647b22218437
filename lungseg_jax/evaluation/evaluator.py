"""Labelled slices and a trained ensemble -> evaluation.json."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

import numpy as np

from lungseg_jax.data.intensity import require_intensity, values_of
from lungseg_jax.data.metadata import SliceMetadata
from lungseg_jax.data.pairs import Slice
from lungseg_jax.data.preprocessing import true_mask
from lungseg_jax.evaluation.slice_scores import SliceScores
from lungseg_jax.evaluation.tuning import LOW_IOU
from lungseg_jax.inference.ensemble.members import AVERAGE
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.inference.postprocessing import POSTPROCESSING, postprocess
from lungseg_jax.inference.segmenter import LungSegmenter, Segmentation
from lungseg_jax.metrics import calibration, overlap, uncertainty
from lungseg_jax.runtime import progress

TOLERANCE = 2.0  # of NSD: pixels, or mm where the spacing is known
FLIPS = "all+flips"
DOUBTS = ("expected_iou", "disagreement", "uncertainty", "mutual_information")


def evaluate(
    trained: TrainedEnsemble,
    slices: Iterable[Slice],
    total: int,
    *,
    flips: bool = False,
    patients: Sequence[str] | None = None,
    spacings: Mapping[str, tuple[float, float]] | None = None,
) -> dict:
    """The content of evaluation.json for some labelled slices.

    Args:
      trained: the members. With an average among them every choice is scored, and the
        ensemble is that of all snapshots; without, it is that of the members.
      slices: to score.
      total: their number.
      flips: average over mirror images.
      patients: of each slice, for the intervals.
      spacings: mm between rows and columns, by name of the slice.

    Returns:
      "threshold", "flips", "n", "unit", "tolerance", "intervals_over"; "members" {name:
      scores}; "ensemble" scores, of the masks that `predict` writes; "choices" {choice:
      {"members", "scores"}} and "postprocessing" {"chosen", "scores"}, each without the
      other; "calibration", "uncertainty", "slices".
    """
    names = list(trained.members)
    own = [name for name in names if name != AVERAGE] or names
    choices = _choices(trained, own)
    deployed = LungSegmenter(trained.only(own), flips=flips)
    rows = {
        choice: [names.index(n) for n in chosen] for choice, chosen in choices.items()
    }
    of_member = {name: [] for name in names}  # count rows
    of_choice = {choice: [] for choice in choices}
    of_cleaned = {name: [] for name in POSTPROCESSING}
    tally = _UncertaintyStats(deployed)
    first = _of_domain(slices, trained.domain)
    mirrored = itertools.repeat(None, total)
    if choices:
        first, second = itertools.tee(first)
        of_choice[FLIPS] = []
        mirrored = _answers(trained.only(own), second, flips=True)
    answers = _answers(trained, first, flips=flips)
    with progress.bar("scoring", total) as bar:
        for (one, members), flipped in zip(answers, mirrored, strict=True):
            truth = true_mask(
                one.mask,
                preprocessing=trained.preprocessing["preprocessing"],
                threshold=trained.threshold,
            )

            def counted_against(probability, truth=truth):
                return overlap.count(probability > trained.threshold, truth)

            for name, probability in zip(names, members, strict=True):
                of_member[name].append(counted_against(probability))
            for choice, chosen in rows.items():
                of_choice[choice].append(counted_against(members[chosen].mean(axis=0)))
            if flipped is not None:
                of_choice[FLIPS].append(counted_against(flipped[1].mean(axis=0)))
            of_own = members[[names.index(name) for name in own]]
            raw = of_own.mean(axis=0) > trained.threshold
            for name, cleaned in of_cleaned.items():
                cleaned.append(overlap.count(postprocess(raw, name), truth))
            found = deployed.decide(of_own)
            tally.add(
                one.name,
                of_own.mean(axis=0),
                found,
                truth,
                (spacings or {}).get(one.name),
            )
            bar.update()

    def scores(count_rows) -> dict:
        return overlap.summarize(np.reshape(count_rows, (-1, 3)), groups=patients)

    return {
        "threshold": trained.threshold,
        "flips": flips,
        "n": total,
        "unit": tally.board.unit,
        "tolerance": TOLERANCE,
        "intervals_over": "slices" if patients is None else "patients",
        "members": {name: scores(of_member[name]) for name in own},
        "ensemble": tally.board.summarize(patients),
        "choices": {
            choice: {"members": chosen, "scores": scores(of_choice[choice])}
            for choice, chosen in (choices | _flipped(choices)).items()
        },
        "postprocessing": {
            "chosen": deployed.decision.postprocessing,
            "scores": {name: scores(found) for name, found in of_cleaned.items()},
        },
        "calibration": tally.calibration(),
        "uncertainty": tally.uncertainty(),
        "slices": tally.board.slices,
    }


def slice_metadata(table: SliceMetadata, names: Sequence[str]) -> dict:
    """What a data folder says of its slices, as keywords of `score`."""
    patients = [table.patients[name] for name in names] if table.patients else None
    return {"patients": patients, "spacings": table.spacings}


class _UncertaintyStats:
    """What is gathered of each slice beyond its counts."""

    def __init__(self, deployed: LungSegmenter):
        self.board = SliceScores(TOLERANCE)
        self._decision = deployed.decision
        self._pixels = {"image": 0, "boundary": 0}  # histograms add up

    def add(self, name, mean, found: Segmentation, truth, spacing) -> None:
        self._pixels["image"] += calibration.histogram(mean, truth)
        self._pixels["boundary"] += calibration.histogram(
            mean, truth, calibration.boundary_band(truth)
        )
        row = self.board.add(name, found.mask, truth, spacing)
        row |= {
            "expected_iou": float(found.expected_iou),
            "review": None if found.review is None else bool(found.review),
            "disagreement": float(found.disagreement),
            "uncertainty": float(found.uncertainty.mean()),
            "mutual_information": float(found.mutual_information.mean()),
        }

    def calibration(self) -> dict:
        """Before and after the temperature; of all pixels and near the boundary."""
        after = self._decision.temperature
        return {
            "temperature": after,
            "fitted_on": "validation"
            if self._decision.review_below is not None
            else None,
        } | {
            where: {
                label: calibration.calibration_scores(histogram, temperature)
                | {"reliability": calibration.reliability(histogram, temperature)}
                for label, temperature in (("before", 1.0), ("after", after))
            }
            for where, histogram in self._pixels.items()
        }

    def uncertainty(self) -> dict:
        """How well the doubts of the ensemble find the slices that it gets wrong."""
        scored = [one for one in self.board.slices.values() if one["iou"] is not None]
        iou = np.array([one["iou"] for one in scored])
        low = iou < LOW_IOU
        doubt = {key: np.array([one[key] for one in scored]) for key in DOUBTS}
        doubt["expected_iou"] = -doubt["expected_iou"]  # the less, the more doubt
        result = {
            "low_iou": LOW_IOU,
            "n_low": int(low.sum()),
            "auroc": {key: uncertainty.auroc(d, low) for key, d in doubt.items()},
            "review_below": self._decision.review_below,
            "flagged": None,
            "flagged_low": None,
        }
        if self._decision.review_below is not None:
            flagged = np.array([one["review"] for one in scored], bool)
            every = self.board.slices.values()  # with those that are empty in both
            result |= {
                "flagged": sum(one["review"] for one in every),
                "flagged_low": int((flagged & low).sum()),
            }
        if len(scored):
            result["risk_coverage"] = uncertainty.risk_coverage(
                -doubt["expected_iou"], 1 - iou
            )
        return result


def _choices(trained: TrainedEnsemble, own: Sequence[str]) -> dict[str, list[str]]:
    """The members of each choice, where an average says that all of them are wanted."""
    if not trained.tuning or set(trained.members) - set(own) != {AVERAGE}:
        return {}
    decided = trained.tuning["choices"]
    return {"all": list(own)} | {c: d["members"] for c, d in decided.items()}


def _flipped(choices: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    return {FLIPS: choices["all"]} if choices else {}


def _answers(trained: TrainedEnsemble, slices: Iterable[Slice], *, flips: bool):
    """Each slice with the members' probabilities `[m h w]` of it."""
    answer = trained.ensemble(flips=flips).probabilities
    return zip_with_predictions(answer, slices, image_of=attrgetter("image"))


def _of_domain(slices: Iterable[Slice], domain: str) -> Iterable[Slice]:
    for one in slices:
        require_intensity(values_of([one.image]), domain, one.name)
        yield one
