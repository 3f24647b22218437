"""Settings chosen on the validation split: temperatures and limits of review.

The test split plays no part in them, so its scores are unbiased. (The sizes below which
`postprocess` drops islands and fills holes were set once, from all masks of the Kaggle
set.)
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lungseg_jax.data.pairs import Slice
from lungseg_jax.evaluation.mask_scores import MaskScores
from lungseg_jax.inference import postprocessing
from lungseg_jax.inference.ensemble.members import AVERAGE
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.inference.postprocessing import postprocess
from lungseg_jax.metrics import calibration, overlap, uncertainty
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.sharing import all_gather, all_sum, interleave, own_share

LOW_IOU = 0.95  # slices below it should be reviewed
CACHE_BYTES = 2**29  # of the members' probabilities
UNTUNED = {  # a choice without validation slices
    "iou_pooled": None,
    "temperature": 1.0,
    "review_below": None,
    "review": None,
}


def tune(
    trained: TrainedEnsemble,
    read: Callable[[], Iterable[Slice]],
    total: int,
    *,
    stressed: Sequence[Slice] = (),
) -> dict[str, Any]:
    """Return the content of tuning.json.

    Args:
      trained: all snapshots in the order of training, then their average if there is one.
      read: the validation slices; called once, or once for each of three passes if the
        members' probabilities do not fit into memory. In a job of several processes, they
        are the `own_share` of this one.
      total: the number of these slices, for all processes; 0 if the run has no validation
        split.
      stressed: all changed validation slices, from which the limits of review are also
        chosen: one that was chosen on clean slices only would flag every slice of another
        scanner.

    Returns:
      "n"; "stressed", the number of changed slices; "damped", the number of slices with
      a reduced weight in the temperatures; "members" {name: pooled IoU}; "choices"
      {choice: {"members", "iou_pooled", "temperature", "review_below", "review"}};
      "postprocessing" {"chosen"}, the default clean-up.
    """
    names = list(trained.members)
    choices = _members_by_choice(names)
    rows = {c: [names.index(name) for name in choices[c]] for c in choices}
    if not total:
        untuned = dict.fromkeys(choices, UNTUNED)
        return _content(choices, untuned, n=0, stressed=0, damped=0, members={})
    predict, threshold = trained.predictor().probabilities, trained.threshold
    predictions = _Predictions(trained, predict, read)
    member_scores, choice_scores, losses = MaskScores(names), MaskScores(choices), []
    with progress.bar("tuning", len(own_share(range(total)))) as bar:
        for members, truth, _ in predictions:
            means = mean_by_choice(members, rows)
            choice_scores.add(((c, m > threshold) for c, m in means.items()), truth)
            member_scores.add(zip(names, members > threshold, strict=True), truth)
            losses.append(_loss(means["all"], truth))
            bar.update()
        for scores in (member_scores, choice_scores):
            scores.merge()
        weights = calibration.outlier_weights(np.array(interleave(all_gather(losses))))
        temperatures = _fit_temperatures(predictions, rows, own_share(weights))
        both = predictions, _Predictions(trained, predict, lambda: own_share(stressed))
        reviews = _review_thresholds(both, rows, temperatures, trained)

    pooled = choice_scores.pooled_iou()
    settings = {
        choice: {
            "iou_pooled": pooled[choice],
            "temperature": temperatures[choice],
            **reviews[choice],
        }
        for choice in choices
    }
    return _content(
        choices,
        settings,
        n=total,
        stressed=len(stressed),
        damped=int((weights < 1).sum()),
        members=member_scores.pooled_iou(),
    )


def _content(
    choices: Mapping[str, list[str]],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    n: int,
    stressed: int,
    damped: int,
    members: Mapping[str, float | None],
) -> dict[str, Any]:
    """The content of tuning.json, from the members and the settings of each choice."""
    return {
        "n": n,
        "stressed": stressed,
        "damped": damped,
        "members": members,
        "choices": {
            choice: {"members": names} | settings[choice]
            for choice, names in choices.items()
        },
        "postprocessing": {"chosen": postprocessing.DEFAULT},
    }


def _members_by_choice(names: Sequence[str]) -> dict[str, list[str]]:
    snapshots = [name for name in names if name != AVERAGE]
    choices = {"all": snapshots, "last": snapshots[-1:]}
    return choices | ({AVERAGE: [AVERAGE]} if AVERAGE in names else {})


def mean_by_choice(
    members: np.ndarray, rows: Mapping[str, Sequence[int]]
) -> dict[str, np.ndarray]:
    """Return the mean probability `[h w]` of each choice, from all members `[m h w]`."""
    return {choice: members[chosen].mean(axis=0) for choice, chosen in rows.items()}


def _loss(probability: np.ndarray, truth: np.ndarray) -> float:
    histogram = calibration.logit_histogram(probability, truth)
    return calibration.calibration_scores(histogram)["nll"]


def _fit_temperatures(
    predictions: "_Predictions", rows: Mapping[str, Sequence[int]], weights: np.ndarray
) -> dict[str, float]:
    """The temperature of each choice, each slice counted with its weight."""
    histograms: dict[str, Any] = dict.fromkeys(rows, 0)
    for (members, truth, _), weight in zip(predictions, weights, strict=True):
        for choice, mean in mean_by_choice(members, rows).items():
            histograms[choice] += weight * calibration.logit_histogram(mean, truth)
    return {c: calibration.fit_temperature(h) for c, h in all_sum(histograms).items()}


def _review_thresholds(
    predictions: Sequence["_Predictions"],
    rows: Mapping[str, Sequence[int]],
    temperatures: Mapping[str, float],
    trained: TrainedEnsemble,
) -> dict[str, dict[str, Any]]:
    """The limit of review for each choice, of the masks that `predict` writes."""
    pairs: dict[str, list] = {choice: [] for choice in rows}
    for members, truth, image in itertools.chain.from_iterable(predictions):
        for choice, mean in mean_by_choice(members, rows).items():
            mask = mean > trained.threshold
            mask = postprocess(mask, postprocessing.DEFAULT, trained.in_hu(image))
            calibrated = calibration.apply_temperature(mean, temperatures[choice])
            iou = float(overlap.iou(overlap.count_pixels(mask, truth)))
            iou = 1.0 if np.isnan(iou) else iou  # both are empty
            confidence = float(uncertainty.expected_iou(calibrated, mask))
            pairs[choice].append((confidence, iou))
    parts = all_gather(pairs)
    chosen = {}
    for choice in rows:
        every = np.array(list(itertools.chain(*(part[choice] for part in parts))))
        chosen[choice] = uncertainty.review_threshold(*every.T, low=LOW_IOU)
    return {c: {"review_below": r["threshold"], "review": r} for c, r in chosen.items()}


class _Predictions:
    """Iterates over the members' probabilities `[m h w]`, the true mask and the image.

    They are kept after the first pass if they fit into `CACHE_BYTES`, and computed again
    in each pass otherwise.
    """

    def __init__(
        self,
        trained: TrainedEnsemble,
        predict: Callable[..., Iterator[np.ndarray]],
        read: Callable[[], Iterable[Slice]],
    ):
        self._trained, self._predict, self._read = trained, predict, read
        self._cached: list[tuple[np.ndarray, ...]] | None = None

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        if self._cached is not None:
            yield from self._cached
            return
        cached, room = [], CACHE_BYTES
        predictions = zip_with_predictions(self._predict, self._read())
        for image_slice, members in predictions:
            item = members, self._trained.true_mask(image_slice.mask), image_slice.image
            yield item
            room -= members.nbytes + image_slice.image.nbytes
            if room > 0:
                cached.append(item)
            else:
                cached.clear()
        self._cached = cached if room > 0 else None
