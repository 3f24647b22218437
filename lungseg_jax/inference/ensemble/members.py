"""Which members make the ensemble: all, the last, the best, some, or their average.

What stands behind the names "best" and "greedy" is decided on the validation split
(`lungseg_jax.evaluation.tuning`); a run that is not finished knows "all" and "last" alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lungseg_jax.metrics import overlap
from lungseg_jax.runtime.errors import UserError

AVERAGE = "average"  # the network whose weights are the mean of all snapshots'
EVERY = "every"  # all snapshots and, where there is one, their average
CHOICES = ("all", "last", "best", "greedy", AVERAGE)


def select_members(
    choice: str,
    *,
    snapshots: Sequence[str],
    tuned: Mapping[str, Sequence[str]],
) -> list[str]:
    """The names of the members that `choice` names.

    Args:
      choice: one of `CHOICES`, or names as "300,600".
      snapshots: the names of all snapshots, in the order of training.
      tuned: members by the name of a choice, as far as they are known.

    Raises:
      UserError: an unknown choice or step, or nothing to choose from.
    """
    if not snapshots:
        raise UserError(
            "the run has no snapshot yet.",
            rule="a snapshot is saved at the end of each cycle.",
            remedy="run the training command again; it resumes.",
        )
    if choice == EVERY:
        return [*snapshots, *tuned.get(AVERAGE, ())]
    if choice in tuned:
        return list(tuned[choice])
    if choice == "all":
        return list(snapshots)
    if choice == "last":
        return [snapshots[-1]]
    if choice in CHOICES:
        raise UserError(
            f"members={choice}: this run or bundle has none.",
            rule="best and greedy are chosen on a validation split, and average made, "
            "at the end of a training; a bundle has what was exported.",
            remedy="choose all, last or steps; or finish the training. A validation "
            "split has --config.data.validation_fraction=0.1.",
        )
    names = [name.strip() for name in choice.split(",")]
    unknown = [name for name in names if name not in snapshots]
    if unknown:
        raise UserError(
            f"members={choice}: {', '.join(unknown)} is no snapshot of this run.",
            rule=f"{', '.join(CHOICES)}, or some of {', '.join(snapshots)}.",
        )
    return [name for name in snapshots if name in names]


class Contest:
    """The pooled IoU of every set of members, from one pass over labelled slices.

    Where all members are on one side of the threshold, so is every mean of them. Only
    the pixels on which they are divided are kept, about one in a hundred.

    Args:
      names: of the members.
      threshold: lung where the mean probability is above it.
    """

    def __init__(self, names: Sequence[str], threshold: float):
        self._names, self._threshold = list(names), threshold
        self._agreed = np.zeros(3, np.int64)
        self._divided: list[_Divided] = []

    def add(self, members: np.ndarray, truth: np.ndarray) -> None:
        """One slice: probabilities `[m h w]` and the true mask `[h w]`, boolean."""
        masks = members > self._threshold
        divided = masks.any(axis=0) & ~masks.all(axis=0)
        self._agreed += overlap.count(masks.all(axis=0) & ~divided, truth & ~divided)
        self._divided.append(_Divided(members[:, divided], truth[divided]))

    def iou(self, names: Sequence[str]) -> float:
        """Of the mean probability of these members, pooled; NaN where nothing is lung."""
        rows = [self._names.index(name) for name in names]
        counts = self._agreed.copy()
        for one in self._divided:
            predicted = one.members[rows].mean(axis=0) > self._threshold
            counts += overlap.count(predicted[None], one.truth[None])
        return float(overlap.iou(counts))

    def best(self, names: Sequence[str]) -> list[str]:
        """The best of these members, alone; of equals the later."""
        return [max(reversed(names), key=lambda name: self._rank([name]))]

    def greedy(self, names: Sequence[str]) -> list[str]:
        """The best member, and others as long as each makes the mean better.

        Source: Caruana, Niculescu-Mizil, Crew & Ksikes, Ensemble selection from
        libraries of models, ICML 2004; without replacement, so that all weigh the same.
        """
        chosen = self.best(names)
        while rest := [name for name in names if name not in chosen]:
            found = max(rest, key=lambda name: self._rank([*chosen, name]))
            if self._rank([*chosen, found]) <= self._rank(chosen):
                break
            chosen.append(found)
        return [name for name in names if name in chosen]

    def _rank(self, names: Sequence[str]) -> float:
        value = self.iou(names)
        return -1.0 if np.isnan(value) else value


@dataclasses.dataclass(frozen=True)
class _Divided:
    """The pixels of a slice that some member calls lung and some not.

    Attributes:
      members: `[m d]` probabilities.
      truth: `[d]`.
    """

    members: np.ndarray
    truth: np.ndarray
