"""What an interrupted prediction of a folder has left, and whether it can be continued."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lungseg_jax.checkpointing.checksums import json_digest
from lungseg_jax.inference.prediction_record import describe_weights
from lungseg_jax.inference.prediction_table import read_rows
from lungseg_jax.inference.prediction_task import PredictionTask, unfinished
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.runtime.errors import UserError, bullet_list
from lungseg_jax.runtime.files import read_json, write_json

OPTIONS = ".lungseg_predict.json"  # in a folder of masks: how they were made


@dataclasses.dataclass(frozen=True)
class Remainder:
    """The part of a prediction that is left.

    Attributes:
      tasks: those to do.
      rows: of the table, of the tasks that are done.
    """

    tasks: Sequence[PredictionTask]
    rows: Sequence[Mapping[str, str]]


def remainder(
    tasks: Sequence[PredictionTask], table: Path | None, *, overwrite: bool
) -> Remainder:
    """Find out which tasks are left.

    Args:
      tasks: all of them.
      table: the CSV file of the command, or None.
      overwrite: see `unfinished`.

    Raises:
      UserError: a mask would be replaced, or the table cannot be read.
    """
    found = read_rows(table) if table and table.exists() else {}
    # The same input may have been named by another path.
    names = {os.path.realpath(task.name): task.name for task in tasks}
    rows_of = {names.get(os.path.realpath(n), n): rows for n, rows in found.items()}
    measured = rows_of if table else None
    left = unfinished(tasks, measured=measured, overwrite=overwrite)
    again = {task.name for task in left}
    kept = [
        {**row, "input": name}
        for name, rows in rows_of.items()
        if name not in again
        for row in rows
    ]
    return Remainder(left, kept)


def options_recorder(
    folder: Path, segmenter: LungSegmenter, options: Mapping[str, Any], *, resumed: bool
) -> Callable[[], None]:
    """Return a function that records, in a folder of masks, what they are made with.

    Args:
      folder: of the masks.
      segmenter: the trained ensemble.
      options: JSON, besides the weights and the clean-up.
      resumed: whether masks of an earlier command are kept; nothing is written then.

    Raises:
      UserError: masks are kept that were made with something else.
    """
    weights = describe_weights(segmenter)
    cleanup = {"postprocessing": weights.pop("postprocessing")}
    made_with = {"weights": json_digest(weights), **cleanup, **options}
    if resumed:
        _require_same_options(folder / OPTIONS, made_with)
        return lambda: None

    @functools.cache
    def record() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / OPTIONS, made_with)

    return record


def _require_same_options(file: Path, options: Mapping[str, Any]) -> None:
    if not file.exists():
        return  # written by version 0.1, or elsewhere
    before = read_json(file)
    before = before if isinstance(before, dict) else {}
    changed = [
        f"{name}: {before.get(name)} -> {value}"
        for name, value in options.items()
        if before.get(name) != value
    ]
    if changed:
        raise UserError(
            f"the masks in {file.parent} were made with other options:\n"
            f"{bullet_list(changed)}",
            rule="--resume continues with the options of before.",
            remedy="the same options; another OUTPUT; or --overwrite without --resume, "
            "to predict all again.",
        )
