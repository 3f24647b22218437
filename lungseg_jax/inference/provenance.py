"""Provenance: the input and the options of each mask in a folder, in a file there."""

import contextlib
import hashlib
import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.data.io.dicom_files import may_be_dicom
from lungseg_jax.data.io.formats import kind_of
from lungseg_jax.data.io.stored_voxels import files_of
from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.runtime.errors import UserError, bullet_list
from lungseg_jax.runtime.files import append_text

RECORD = ".lungseg_predict.jsonl"
BLOCK, BLOCKS = 2**16, 33  # bytes, and how many of them, that identify a file


class Provenance:
    """The input that each mask was made from, and the options.

    RECORD has lines `{"mask": "anna/ct.nii.gz", "made_with": {"labels": "lung", ...},
    "input": "5f1a..."}`. The last line about a mask applies; null marks one about to be
    replaced. Lines are only appended, so commands may write into one folder at the same
    time. A mask that is made again by itself, or with the folder that it is in, is also
    recorded where it was before, in a folder above.

    Args:
      folder: of the masks; None for a single mask, of which nothing is recorded.

    Raises:
      UserError: the record cannot be read.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._before = dict(_read(folder / RECORD)) if folder else {}
        self._above: Mapping[Path, Container[str]] = {}  # what folders above record
        self._identities: dict[str, str | None] = {}  # of inputs, by mask
        self._tasks: Sequence[PredictionTask] = ()
        self._options: Mapping[str, Any] = {}
        self._has_begun = False

    def is_outdated(self, task: PredictionTask) -> bool:
        """Return whether a command that was stopped was to replace the mask."""
        before = self._before.get(self._name(task))
        return before is not None and before["made_with"] is None

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
          UserError: masks are kept that were made with something else, or from other
            inputs.
        """
        self._tasks, self._options = tasks, options
        self._above = _records_above(self._folder or tasks[0].target) if tasks else {}
        if self._folder or self._above:
            self._identities = {self._name(task): _identity(task) for task in tasks}
        known = [  # others: by version 0.1, or by hand
            (task, self._before[self._name(task)])
            for task in kept
            if self._before.get(self._name(task), {}).get("made_with")
        ]
        changed = [
            f"{name}: {before['made_with'].get(name)} -> {value}"
            for _, before in known
            for name, value in options.items()
            if before["made_with"].get(name) != value
        ]
        if changed:
            raise UserError(
                f"masks in {self._folder} were made with other options:\n"
                f"{bullet_list(list(dict.fromkeys(changed)))}",
                rule="--resume continues with the options of before.",
                remedy="the same options; another OUTPUT; or --overwrite without "
                "--resume, to predict all again.",
            )
        others = [
            f"{task.target}: another input than {task.name}"
            for task, before in known
            if before.get("input") and _identity(task) not in (before["input"], None)
        ]
        if others:
            raise UserError(
                f"masks in {self._folder} were made from other inputs:\n"
                f"{bullet_list(others)}",
                rule="--resume keeps the masks of the same inputs.",
                remedy="delete these masks; another OUTPUT; or --overwrite without "
                "--resume, to predict all again.",
            )

    def begin(self) -> None:
        """Record that the planned tasks replace the masks that are there."""
        if not self._has_begun:
            self._has_begun = True
            there = [task for task in self._tasks if task.target.exists()]
            self._append(there, made_with=None)

    def add(self, task: PredictionTask) -> None:
        """Record a mask that has been made."""
        identity = self._identities.get(self._name(task))
        self._append([task], made_with=self._options, input=identity)

    def _name(self, task: PredictionTask) -> str:
        return os.path.relpath(task.target, self._folder)

    def _append(self, tasks: Sequence[PredictionTask], **known: Any) -> None:
        """Append lines about masks, here and where they are recorded above."""
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
            _append(self._folder, map(self._name, tasks), known)
        for folder, recorded in self._above.items():
            names = [os.path.relpath(task.target, folder) for task in tasks]
            _append(folder, [name for name in names if name in recorded], known)


def _append(folder: Path, masks: Iterable[str], known: Mapping[str, Any]) -> None:
    lines = [json.dumps({"mask": mask, **known}) for mask in masks]
    # After a line break, as a command that was killed may have left half a line.
    append_text(folder / RECORD, "".join(f"\n{line}\n" for line in lines))


def _records_above(path: Path) -> dict[Path, Container[str]]:
    """Return the masks that the folders above a path record, if that can be read."""
    records = {}
    for folder in path.absolute().parents:
        with contextlib.suppress(UserError):
            if recorded := {mask for mask, _ in _read(folder / RECORD)}:
                records[folder] = recorded
    return records


def _identity(task: PredictionTask) -> str | None:
    """Return a text that differs for another input of the same name.

    For a file or a folder with one series, it is a digest of the sizes of the files and of
    blocks all over the first and the last one; for one of several series, the UID. None if
    the input cannot be read.
    """
    if task.series:
        return task.series
    try:
        files = _files(task.source)
        sizes = [path.stat().st_size for path in files]
        digest = hashlib.sha256(json.dumps(sizes).encode())
        for path, size in ((files[0], sizes[0]), (files[-1], sizes[-1])):
            with path.open("rb") as file:
                for start in np.linspace(0, max(0, size - BLOCK), BLOCKS, dtype=int):
                    file.seek(start)
                    digest.update(file.read(BLOCK))
    except (OSError, IndexError, UserError):
        return None
    return digest.hexdigest()


def _files(source: Path) -> list[Path]:
    """Return the files of an input: of a folder, those that may be of its series."""
    if not source.is_dir():
        return files_of(source)
    paths = filter(may_be_dicom, sorted(source.iterdir()))
    return [path for path in paths if path.is_file() and not kind_of(path)]


def _read(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return
    except OSError as e:
        raise UserError(
            f"{file} cannot be read: {e.strerror or e}.",
            remedy="change its permissions, or name another output.",
        ) from e
    for line in lines:
        try:
            row = json.loads(line)
            row["made_with"] = row["made_with"] and dict(row["made_with"])
            mask = str(row["mask"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # it was cut short, or edited
        yield mask, row
