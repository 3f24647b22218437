"""What each mask of a folder was made with, recorded in a file beside the masks."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.runtime.errors import UserError, bullet_list
from lungseg_jax.runtime.files import append_text

RECORD = ".lungseg_predict.jsonl"


class Provenance:
    """The options that each mask was made with.

    RECORD has lines `{"mask": "anna/ct.nii.gz", "made_with": {"labels": "lung", ...}}`.
    The last line about a mask applies; null marks one about to be replaced. Lines are only
    appended, so commands may write into one folder at the same time.

    Args:
      folder: of the masks; None for a single mask, of which nothing is recorded.

    Raises:
      UserError: the record cannot be read.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._made_with = dict(_read(folder / RECORD)) if folder else {}
        self._tasks: Sequence[PredictionTask] = ()
        self._options: Mapping[str, Any] = {}
        self._has_begun = False

    def is_outdated(self, task: PredictionTask) -> bool:
        """Return whether a command that was stopped was to replace the mask."""
        return self._made_with.get(self._name(task), {}) is None

    def plan(
        self,
        tasks: Sequence[PredictionTask],
        options: Mapping[str, Any],
        *,
        kept: Sequence[PredictionTask],
    ) -> None:
        """Say what will be made, and with what.

        Args:
          tasks: to be done.
          options: JSON.
          kept: tasks whose masks are kept, next to these.

        Raises:
          UserError: masks are kept that were made with something else.
        """
        self._tasks, self._options = tasks, options
        before = [self._made_with.get(self._name(task)) for task in kept]
        changed = [
            f"{name}: {made_with.get(name)} -> {value}"
            for made_with in filter(None, before)  # others: by version 0.1, or by hand
            for name, value in options.items()
            if made_with.get(name) != value
        ]
        if changed:
            raise UserError(
                f"masks in {self._folder} were made with other options:\n"
                f"{bullet_list(list(dict.fromkeys(changed)))}",
                rule="--resume continues with the options of before.",
                remedy="the same options; another OUTPUT; or --overwrite without "
                "--resume, to predict all again.",
            )

    def begin(self) -> None:
        """Record that the planned tasks replace the masks that are there."""
        if not self._has_begun:
            self._has_begun = True
            there = [task for task in self._tasks if task.target.exists()]
            # After a blank line, as a command that was killed may have left half a line.
            self._append("", *(self._line(task, None) for task in there))

    def add(self, task: PredictionTask) -> None:
        """Record a mask that has been made."""
        self._append(self._line(task, self._options))

    def _name(self, task: PredictionTask) -> str:
        return os.path.relpath(task.target, self._folder)

    def _line(self, task: PredictionTask, options: Mapping[str, Any] | None) -> str:
        return json.dumps({"mask": self._name(task), "made_with": options})

    def _append(self, *lines: str) -> None:
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
            append_text(self._folder / RECORD, "".join(f"{line}\n" for line in lines))


def _read(file: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return
    except OSError as e:
        raise UserError(f"{file} cannot be read: {e.strerror or e}.") from e
    for line in lines:
        try:
            row = json.loads(line)
            made_with = row["made_with"] and dict(row["made_with"])
            mask = str(row["mask"])
        except (ValueError, KeyError, TypeError):  # cut short
            continue
        yield mask, made_with
