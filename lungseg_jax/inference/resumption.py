"""Finds the tasks that an interrupted prediction of a folder has left."""

import dataclasses
import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from lungseg_jax.inference.prediction_rows import read_rows
from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.inference.provenance import Provenance
from lungseg_jax.runtime.errors import UserError, bullet_list, pluralize


@dataclasses.dataclass(frozen=True)
class Remainder:
    """The part of a prediction that is left.

    Attributes:
      tasks: those to do.
      kept: those that are done.
      rows: of the table, but for those of the tasks to do; rows of other inputs are kept.
    """

    tasks: Sequence[PredictionTask]
    kept: Sequence[PredictionTask]
    rows: Sequence[Mapping[str, str]]


def find_remainder(
    tasks: Sequence[PredictionTask],
    table: Path | None,
    provenance: Provenance,
    *,
    overwrite: bool,
) -> Remainder:
    """Find out which tasks are left.

    Args:
      tasks: all of them.
      table: the CSV file of the command, or None.
      provenance: of the masks.
      overwrite: see `unfinished`.

    Raises:
      UserError: a mask would be replaced, or the table cannot be read.
    """
    found = read_rows(table) if table and table.exists() else {}
    # The same input may have been named by another path; a link may be another input.
    names = {os.path.realpath(task.name): task.name for task in tasks}
    names |= {task.name: task.name for task in tasks}
    # As the table holds a name that is not UTF-8.
    names |= {n.encode(errors="backslashreplace").decode(): n for n in names.values()}
    rows_of = {
        names.get(n) or names.get(os.path.realpath(n), n): rows
        for n, rows in found.items()
    }
    measured = rows_of if table else None
    outdated = {task.name for task in tasks if provenance.is_outdated(task)}
    left = unfinished(tasks, measured=measured, outdated=outdated, overwrite=overwrite)
    again = {task.name for task in left}
    rows = [
        {**row, "input": name}
        for name, rows in rows_of.items()
        if name not in again
        for row in rows
    ]
    return Remainder(left, [task for task in tasks if task.name not in again], rows)


def unfinished(
    tasks: Sequence[PredictionTask],
    *,
    measured: Container[str] | None,
    outdated: Container[str],
    overwrite: bool,
) -> list[PredictionTask]:
    """Return the tasks that an interrupted prediction has left.

    Args:
      tasks: all of them.
      measured: names of the inputs that are in the table, if there is to be one.
      outdated: names of the inputs whose masks it was to replace.
      overwrite: whether other masks may be replaced.

    Raises:
      UserError: a mask would be replaced, because something that belongs to it is missing.
    """
    missing = {}  # what an existing mask lacks, by its task
    left = []
    for task in tasks:
        lost = [path.name for path in task.outputs if not path.exists()]
        if measured is not None and task.name not in measured:
            lost.append("row in the table")
        if lost or task.name in outdated:
            left.append(task)
            if task.target.exists() and task.name not in outdated:
                missing[task.target] = lost[0]
    if missing and not overwrite:
        rows = [f"{target} has no {lost}" for target, lost in missing.items()]
        raise UserError(
            f"{pluralize(len(rows), 'mask')} would be replaced:\n{bullet_list(rows)}",
            rule="--resume keeps the masks that are there, with all that belongs to them.",
            remedy="add --overwrite to predict them again; or resume with the options "
            "and the table of before.",
        )
    return left
