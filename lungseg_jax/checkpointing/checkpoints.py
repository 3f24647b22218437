"""Saving and restoring trees of arrays by step; the only importer of Orbax.

Orbax restores a flipped bit without complaint, so a checksum manifest is saved beside
each tree.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as policies

from lungseg_jax.checkpointing import manifest
from lungseg_jax.checkpointing.manifest import CorruptCheckpointError
from lungseg_jax.runtime import distributed, progress
from lungseg_jax.runtime.errors import UserError

STATE, MANIFEST = "state", "seal"  # the items of a checkpoint on disk
NEWEST = 2  # steps kept besides the snapshots: one to fall back to


class Checkpoints:
    """The checkpoints below `folder`: `snapshots` and, until the last, the newest two.

    Writes continue in the background; leaving the context waits for the last of them.
    """

    def __init__(self, folder: Path, *, snapshots: Sequence[int]):
        self._folder, self._snapshots = folder.absolute(), list(snapshots)
        self._damaged: set[int] = set()

    def __enter__(self) -> "Checkpoints":
        _silence_orbax()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_KeepSnapshots(self._snapshots),
            cleanup_tmp_directories=True,
        )
        with self._report_write_errors():
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        return self

    def __exit__(self, *_) -> None:
        try:
            with self._report_write_errors():
                self._manager.close()
        finally:
            self._discard_unfinished()

    def save(self, step: int, tree: Any, notes: Mapping[str, Any]) -> None:
        """Save a tree of arrays under a step; an existing checkpoint is left untouched.

        Returns once the arrays are copied, so that the next step may donate them.

        Args:
          step: the number of updates applied.
          tree: what to save.
          notes: JSON that `restore` returns.

        Raises:
          UserError: this save or the previous one could not be written.
        """
        with self._report_write_errors():
            if step in self._damaged:
                self._manager.delete(step)
                self._damaged.remove(step)
            if step in self._manager.all_steps():
                return
            items = {
                STATE: ocp.args.PyTreeSave(tree),
                MANIFEST: ocp.args.JsonSave(manifest.make_manifest(step, tree, notes)),
            }
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, like: Any) -> tuple[int, Any, dict]:
        """Restore the newest intact tree, placed like `like`: step, tree and notes.

        A damaged step is reported and skipped. If nothing was saved or nothing intact is
        left, the result is step 0, `like` itself and no notes.

        Raises:
          UserError: the saved tree has other names, shapes or types than `like`.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                tree, notes = _read(self._manager, self._folder, step, like)
            except CorruptCheckpointError as e:
                self._damaged.add(step)
                progress.say(f"{e.what} Falling back to the previous checkpoint.")
                continue
            return step, tree, notes
        return 0, like, {}

    def check_room(self, like: Any) -> None:
        """Check that the disk can hold all checkpoints of a run.

        Raises:
          UserError: with the space needed and the space available.
        """
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(like))
        kept = len(self._snapshots) + NEWEST + 1  # one more during a write
        present = sum(
            file.stat().st_size
            for step in saved_steps(self._folder)
            for file in (self._folder / str(step)).rglob("*")
            if file.is_file()
        )
        # Includes Orbax's own files and the manifests; then metrics.jsonl and the page.
        needed = kept * (1.1 * size + 2e5) + 1e6 - present
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise UserError(
                f"the disk of {self._folder} has {_mb(free)} free.",
                rule=f"{kept} checkpoints of {_mb(size)} need {_mb(needed)} more.",
                remedy="free some space, or name another folder with --workdir=DIR.",
            )

    def _discard_unfinished(self) -> None:
        """Delete what failed writes have left, after the last one has ended."""
        if distributed.is_primary():
            for path in self._folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _report_write_errors(self) -> Iterator[None]:
        """Turn the errors of a full or broken disk into UserError."""
        try:
            yield
        except (OSError, ValueError) as e:
            if isinstance(e, ValueError) and "os_error_code" not in str(e):
                raise  # otherwise it is tensorstore's form of an errno
            intact = [s for s in saved_steps(self._folder) if s not in self._damaged]
            raise UserError(
                f"a checkpoint could not be written to {self._folder}: "
                f"{str(e).splitlines()[0]}",
                rule=f"{_mb(shutil.disk_usage(self._folder).free)} are free there.",
                remedy="free some space and run the command again"
                + (f": it resumes from step {intact[-1]}." if intact else "."),
            ) from e


class _KeepSnapshots(policies.PreservationPolicy):
    """Keep the snapshots and, until the last of them, the newest steps."""

    def __init__(self, snapshots: Sequence[int]):
        self._snapshots = snapshots

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        is_finished = self._snapshots and steps[-1] == self._snapshots[-1]
        newest = [] if is_finished else steps[-NEWEST:]
        return [step in self._snapshots or step in newest for step in steps]


def restore_variables(folder: Path, step: int, like: Any) -> Any:
    """Restore part of one checkpoint, such as the variables without the optimizer.

    Args:
      folder: the checkpoints of a run.
      step: the checkpoint to read.
      like: arrays of the expected names, shapes and types, abstract or concrete; their
        sharding says where to place the result.

    Raises:
      UserError: the step does not exist, is damaged, or has other names, shapes or types.
    """
    if step not in saved_steps(folder):
        raise UserError(
            f"{folder} has no step {step}.", rule=f"one of {saved_steps(folder)}."
        )
    with _reader(folder) as manager:
        return _read(manager, folder, step, dict(like))[0]


def verify_checkpoint(folder: Path, step: int) -> int:
    """Read and verify every array of a checkpoint; return their number.

    Raises:
      CorruptCheckpointError: an array differs from what was saved, or is missing.
    """
    where = folder / str(step)
    arrays = manifest.read_manifest(where / MANIFEST / "metadata", step)["arrays"]
    with _reader(folder) as manager, _report_read_errors(where):
        with ocp.PyTreeCheckpointer() as reader:
            structure = reader.metadata(where.absolute() / STATE).item_metadata.tree
        on_host = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), structure
        )
        tree = _restore(manager, step, ocp.args.PyTreeRestore(restore_args=on_host))
    manifest.verify_arrays(arrays, tree, where)
    missing = sorted(arrays.keys() - manifest.named_leaves(tree).keys())
    if missing:
        raise CorruptCheckpointError(where, f"{missing[0]} is missing")
    return len(arrays)


def saved_steps(folder: Path) -> list[int]:
    """Return the steps that were saved completely, in order; empty without a folder."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))


def _read(manager, folder: Path, step: int, like: Any) -> tuple[Any, dict]:
    where = folder / str(step)
    saved = manifest.read_manifest(where / MANIFEST / "metadata", step)
    for name, leaf in manifest.named_leaves(like).items():
        stored = saved["arrays"].get(name, {"kind": "missing"})["kind"]
        if stored != manifest.dtype_and_shape(leaf):
            raise UserError(
                f"{where} holds another network: {name} is {stored} instead of "
                f"{manifest.dtype_and_shape(leaf)}.",
                remedy="give the run a folder of its own with --workdir=DIR.",
            )
    args = ocp.args.PyTreeRestore(
        item=like,
        restore_args=ocp.checkpoint_utils.construct_restore_args(like),
        partial_restore=True,
    )
    with _report_read_errors(where):
        tree = _restore(manager, step, args)
    manifest.verify_arrays(saved["arrays"], tree, where)
    return tree, saved["notes"]


def _restore(manager, step: int, args) -> Any:
    return manager.restore(step, args=ocp.args.Composite(**{STATE: args}))[STATE]


def _reader(folder: Path) -> ocp.CheckpointManager:
    _silence_orbax()
    this_process = jax.process_index()  # the others do not take part in reading
    options = ocp.CheckpointManagerOptions(
        read_only=True,
        create=False,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=this_process, active_processes={this_process}
        ),
    )
    return ocp.CheckpointManager(folder.absolute(), options=options)


@contextlib.contextmanager
def _report_read_errors(where: Path) -> Iterator[None]:
    try:
        yield
    except Exception as e:  # Orbax raises a bare Exception for a damaged array file
        lines = str(e).strip().splitlines() or [type(e).__name__]
        raise CorruptCheckpointError(where, lines[0][:120]) from e


def _mb(n: float) -> str:
    return f"{n / 1e6:.1f} MB"


def _silence_orbax() -> None:
    logging.set_verbosity(logging.FATAL)  # ten lines per save, a traceback per error
