"""The members of an ensemble by name: all snapshots, the last, some, or their average."""

import enum
from collections.abc import Mapping, Sequence

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run_folder import AVERAGE

CHOICES = ("all", "last", AVERAGE)
# Choices of earlier versions, selected on the validation split. Their measured gain of
# 0.0003 was within the noise of 0.003. tuning.json of older runs still has them.
REMOVED = ("best", "greedy")


class Every(enum.Enum):
    """The choice of all snapshots and their average, if any; users cannot name it."""

    EVERY = enum.auto()


EVERY = Every.EVERY


def select_members(
    choice: str | Every,
    *,
    snapshots: Sequence[str],
    tuned: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return the names of the chosen members, in the order of training.

    Args:
      choice: one of `CHOICES`, names such as "300,600", or EVERY.
      snapshots: the names of all snapshots, in the order of training.
      tuned: members by the name of a choice, as far as they are known; the average is
        available if it is among them.

    Raises:
      UserError: the choice is not text, it names an unknown member, or the run has no
        snapshot yet.
    """
    if not snapshots:
        raise UserError(
            "the run has no snapshot yet.",
            rule="a snapshot is saved at the end of each cycle.",
            remedy="run the training command again; it resumes.",
        )
    known = f"{', '.join(CHOICES)}, or some of {', '.join(snapshots)}."
    if not isinstance(choice, str | Every):
        raise UserError(
            f"members={choice!r} is not text.",
            rule=known,
            remedy=f'write numbers as text, too, such as members="{snapshots[-1]}".',
        )
    if choice is EVERY:
        return [*snapshots, *tuned.get(AVERAGE, ())]
    if choice in REMOVED:
        raise UserError(
            f"members={choice}: the choices {' and '.join(REMOVED)} were removed.",
            rule=known,
            remedy="choose all: the removed choices gained nothing that could be told "
            "from noise.",
        )
    if choice in tuned:
        return list(tuned[choice])
    if choice == "all":
        return list(snapshots)
    if choice == "last":
        return [snapshots[-1]]
    if choice in CHOICES:
        raise UserError(
            f"members={choice}: this run or bundle has none.",
            rule="the average is made at the end of a training of several snapshots; a "
            "bundle has only what was exported.",
            remedy="choose all, last or steps; or finish the training.",
        )
    return _select_steps(choice, snapshots, rule=known)


def _select_steps(choice: str, snapshots: Sequence[str], *, rule: str) -> list[str]:
    names = [name.strip() for name in choice.split(",")]
    if not all(names):
        raise UserError(f"members={choice}: a name is empty.", rule=rule)
    unknown = [name for name in names if name not in snapshots]
    if unknown:
        raise UserError(
            f"members={choice}: this run has no snapshot {', '.join(unknown)}.",
            rule=rule,
        )
    return [name for name in snapshots if name in names]
