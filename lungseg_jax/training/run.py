"""A run as read from its folder, once."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.checksums import has_valid_checksum, json_digest
from lungseg_jax.checkpointing.weights import read_weights
from lungseg_jax.data.data_folder import IMAGES
from lungseg_jax.data.pairs import name_of
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import read_json
from lungseg_jax.training.config import check_config, snapshot_steps, upgrade_config
from lungseg_jax.training.run_folder import AVERAGE, RunFolder

# Version 1, of lungseg_jax 0.1, has no "schema_version" in its files.
SCHEMA_VERSION = 2


class UnsupportedRunError(UserError):
    """A run that may well be intact, but that this installation cannot use."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder says about its run.

    Attributes:
      folder: the files.
      config: the configuration, with every knob of this version.
      record: the content of run.json.
      saved_steps: the checkpoints that were saved, in order.
    """

    folder: RunFolder
    config: ConfigDict
    record: Mapping[str, Any]
    saved_steps: Sequence[int]

    @classmethod
    def open(cls, folder: RunFolder) -> "Run":
        """Read a run.

        Raises:
          UnsupportedRunError: a newer version wrote it, or it has options that are
            unknown here.
          UserError: the folder holds no run, or one of its files was changed.
        """
        config, record = _read_config_and_record(folder.require())
        return cls(folder, config, record, checkpoints.saved_steps(folder.checkpoints))

    @property
    def snapshots(self) -> list[int]:
        """The steps of the snapshots that were saved."""
        return [step for step in self.planned_snapshots if step in self.saved_steps]

    @property
    def planned_snapshots(self) -> tuple[int, ...]:
        """The steps of all snapshots of the finished run."""
        return snapshot_steps(self.config)

    @property
    def planned_names(self) -> list[str]:
        """The names of `planned_snapshots` as members of an ensemble."""
        return [str(step) for step in self.planned_snapshots]

    @property
    def lost_snapshots(self) -> list[int]:
        """Snapshots before the newest checkpoint, or scored, whose folders are missing."""
        scored = self.evaluation["members"] if self.evaluation else ()
        reached = max([0, *self.saved_steps, *map(int, scored)])
        return [
            step
            for step in self.planned_snapshots
            if step <= reached and step not in self.saved_steps
        ]

    @functools.cached_property
    def tuning(self) -> Mapping[str, Any]:
        """The content of tuning.json; empty if there is none for these snapshots."""
        tuning, names = read_intact(self.folder.tuning), [*map(str, self.snapshots)]
        is_of_these = tuning and tuning["choices"]["all"]["members"] == names
        return tuning if is_of_these else {}

    @functools.cached_property
    def evaluation(self) -> dict | None:
        """The content of evaluation.json; None if it is missing or was changed."""
        return read_intact(self.folder.evaluation)

    def read_average(self, like: Any) -> tuple[Any, Sequence[str]]:
        """Read the average of the snapshots: its variables, and the names of those.

        Raises:
          UserError: see `read_weights`; or the file holds something else.
        """
        networks, about = read_weights(self.folder.average, like)
        if networks.keys() != {AVERAGE} or "of" not in about:
            raise UserError(
                f"{self.folder.average} is not the average of a run.",
                remedy="delete it; the training command creates it again.",
            )
        return networks[AVERAGE], about["of"]

    @functools.cached_property
    def training_images(self) -> frozenset[str]:
        """SHA-256 of the images that the run, or one it started from, was trained on."""
        train = set(self.record["split"]["train"])
        own = {
            digest
            for path, digest in _images(self.record["sha256"])
            if name_of(path) in train
        }
        extra = self.record.get("extra") or {"sha256": {}}
        own |= {digest for _, digest in _images(extra["sha256"])}
        # null for a bundle; not in runs that were started before it was recorded
        initial = self.record.get("initial") or {}
        return frozenset(own.union(initial.get("trained_on") or ()))

    def trained_on(self, digests: Mapping[str, str]) -> set[str]:
        """Return the slices of a data folder that are `training_images`, by content.

        Args:
          digests: SHA-256 of each file, by its path in the data folder.
        """
        return {
            name_of(path)
            for path, digest in _images(digests)
            if digest in self.training_images
        }


def _read_config_and_record(folder: RunFolder) -> tuple[ConfigDict, dict]:
    """Read and verify config.json and run.json.

    Raises:
      UnsupportedRunError: see `Run.open`.
      UserError: one of them is damaged, or was changed.
    """
    written, record = read_json(folder.config), read_json(folder.run)
    try:
        for file, content in ((folder.config, written), (folder.run, record)):
            _require_known_schema(file, content)
        knobs = {key: v for key, v in written.items() if key != "schema_version"}
        is_config_intact = json_digest(knobs) in record["config_sha256"]
        version = record.get("versions", {}).get("lungseg-jax", "unknown")
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise UserError(
            f"{folder.path} is not a run folder, or is damaged: {e}.",
            rule=f"{folder.config.name} and {folder.run.name} are as a training left them.",
        ) from e
    if not has_valid_checksum(record):
        raise _changed(folder.run)
    if not is_config_intact:
        raise _changed(folder.config)
    try:
        config = upgrade_config(knobs, version)
        check_config(config)
    except UserError as e:
        raise UnsupportedRunError(e.what, rule=e.rule, remedy=e.remedy) from e
    return config, record


def read_intact(file: Path) -> dict | None:
    """Read a file that can be recreated; None if it is missing, changed or newer."""
    try:
        content = read_json(file)
        _require_known_schema(file, content)
    except (UserError, AttributeError, TypeError):
        return None
    return content if has_valid_checksum(content) else None


def _require_known_schema(file: Path, content: Mapping[str, Any]) -> None:
    version = content.get("schema_version", 1)
    if version > SCHEMA_VERSION:
        raise UnsupportedRunError(
            f"{file} has schema version {version}.",
            rule=f"this version of lungseg_jax reads versions 1 to {SCHEMA_VERSION}.",
            remedy="use a newer lungseg_jax.",
        )


def _images(digests: Mapping[str, str]) -> list[tuple[str, str]]:
    return [row for row in digests.items() if Path(row[0]).parent.name == IMAGES]


def _changed(file: Path) -> UserError:
    return UserError(
        f"{file} was changed since it was written.",
        rule="it describes the checkpoints beside it.",
        remedy="restore it from a copy, or train again with --workdir=DIR.",
    )
