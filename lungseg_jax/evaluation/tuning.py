"""What is decided on the validation split alone: members, temperature, clean-up, review.

The test split plays no part in any of it, so that its scores stay honest. (What
`postprocess` calls an island or a hole was set once, from all masks of the Kaggle set.)
"""

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any

import numpy as np

from lungseg_jax.data.pairs import Slice
from lungseg_jax.data.preprocessing import true_mask
from lungseg_jax.inference.ensemble.members import AVERAGE, Contest
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.inference.postprocessing import POSTPROCESSING, choose, postprocess
from lungseg_jax.metrics import calibration, overlap, uncertainty
from lungseg_jax.runtime import progress

LOW_IOU = 0.95  # a slice below it should have been looked at
KEPT = 2**29  # bytes of probabilities


def tune(
    trained: TrainedEnsemble, read: Callable[[], Iterable[Slice]], total: int
) -> dict:
    """The content of tuning.json.

    Args:
      trained: all snapshots in the order of training, then their average if there is one.
      read: the validation slices; called once, or for each of three passes where the
        members' probabilities do not fit into memory.
      total: the number of these slices; 0 where the run has no validation split.

    Returns:
      "n"; "damped", slices that count less for the temperatures; "members" {name: pooled
      IoU}; "choices" {choice: {"members", "iou_pooled", "temperature", "review_below",
      "review"}}; "postprocessing" {"chosen", "iou_pooled" {name: of all snapshots
      together}}.
    """
    names = list(trained.members)
    snapshots = [name for name in names if name != AVERAGE]
    chosen = {"all": snapshots, "last": snapshots[-1:]}
    if AVERAGE in names:
        chosen[AVERAGE] = [AVERAGE]
    if not total:
        return _undecided(chosen)
    answers = _Answers(trained, read)
    with progress.bar("tuning", total) as bar:
        contest = Contest(names, trained.threshold)
        together = [names.index(name) for name in snapshots]
        losses = []
        for members, truth in answers:
            contest.add(members, truth)
            found = calibration.histogram(members[together].mean(axis=0), truth)
            losses.append(calibration.calibration_scores(found)["nll"])
            bar.update()
        weights = calibration.outlier_weights(np.array(losses))
        chosen |= {"best": contest.best(snapshots), "greedy": contest.greedy(snapshots)}

        rows = {
            choice: [names.index(one) for one in chosen[choice]] for choice in chosen
        }
        histograms: dict[str, Any] = dict.fromkeys(rows, 0)
        cleaned = dict.fromkeys(POSTPROCESSING, 0)
        for (members, truth), weight in zip(answers, weights, strict=True):
            for choice, own in rows.items():
                mean = members[own].mean(axis=0)
                histograms[choice] += weight * calibration.histogram(mean, truth)
            mask = members[rows["all"]].mean(axis=0) > trained.threshold
            for name in cleaned:
                cleaned[name] += overlap.count(postprocess(mask, name), truth)
        scores = {name: overlap.iou(counts) for name, counts in cleaned.items()}
        scores = {name: _number(score) for name, score in scores.items()}
        clean_up = choose({name: score or 0.0 for name, score in scores.items()})

        temperatures = {
            c: calibration.fit_temperature(h) for c, h in histograms.items()
        }
        confidence = {choice: [] for choice in chosen}
        ious = {choice: [] for choice in chosen}
        for members, truth in answers:
            for choice, own in rows.items():
                mean = members[own].mean(axis=0)
                mask = postprocess(mean > trained.threshold, clean_up)
                sure = calibration.apply_temperature(mean, temperatures[choice])
                iou = float(overlap.iou(overlap.count(mask, truth)))
                ious[choice].append(1.0 if np.isnan(iou) else iou)  # both are empty
                confidence[choice].append(uncertainty.expected_iou(sure, mask))

    def decided(choice: str) -> dict:
        review = uncertainty.review_threshold(
            np.array(confidence[choice]), np.array(ious[choice]), low=LOW_IOU
        )
        return {
            "members": chosen[choice],
            "iou_pooled": _number(contest.iou(chosen[choice])),
            "temperature": temperatures[choice],
            "review_below": review["threshold"],
            "review": review,
        }

    return {
        "n": total,
        "damped": int((weights < 1).sum()),
        "members": {name: _number(contest.iou([name])) for name in names},
        "choices": {choice: decided(choice) for choice in chosen},
        "postprocessing": {"chosen": clean_up, "iou_pooled": scores},
    }


def _number(value: float) -> float | None:
    """None where no slice has lung, in truth or mask."""
    return None if np.isnan(value) else float(value)


class _Answers:
    """Probabilities `[m h w]` of all members, and the true mask, of each slice.

    They are computed again each time, unless they are few.
    """

    def __init__(self, trained: TrainedEnsemble, read: Callable[[], Iterable[Slice]]):
        self._trained, self._read = trained, read
        self._ensemble = trained.ensemble()
        self._kept: list[tuple[np.ndarray, np.ndarray]] | None = None

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept, room = [], KEPT
        answers = zip_with_predictions(
            self._ensemble.probabilities, self._read(), image_of=attrgetter("image")
        )
        for one, members in answers:
            truth = true_mask(
                one.mask,
                preprocessing=self._trained.preprocessing["preprocessing"],
                threshold=self._trained.threshold,
            )
            yield members, truth
            room -= members.nbytes
            if room > 0:
                kept.append((members, truth))
            else:
                kept.clear()
        self._kept = kept if room > 0 else None


def _undecided(chosen: dict[str, list[str]]) -> dict:
    nothing = {
        "iou_pooled": None,
        "temperature": 1.0,
        "review_below": None,
        "review": None,
    }
    return {
        "n": 0,
        "damped": 0,
        "members": {},
        "choices": {
            choice: {"members": names} | nothing for choice, names in chosen.items()
        },
        "postprocessing": {"chosen": "none", "iou_pooled": {}},
    }
