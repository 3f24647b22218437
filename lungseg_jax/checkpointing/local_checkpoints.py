"""The checkpoints of a run on this machine, as it writes them."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from lungseg_jax.checkpointing import manifest
from lungseg_jax.checkpointing.checkpoints import (
    MANIFEST,
    STATE,
    one_process,
    restore_step,
    saved_steps,
    silence_orbax,
)
from lungseg_jax.checkpointing.manifest import CorruptCheckpointError
from lungseg_jax.runtime import job, progress
from lungseg_jax.runtime.errors import UserError

NEWEST = 2  # steps kept besides the snapshots: one to fall back to


class LocalCheckpoints:
    """The checkpoints below `folder`: `snapshots` and, until the last, the newest two.

    Writes continue in the background; leaving the context waits for the last of them.

    Args:
      folder: where they are, on this machine.
      snapshots: steps that are kept for ever.
      this_process_only: whether the other processes of the job do not take part; the
        folder then has to exist.
    """

    def __init__(
        self,
        folder: Path,
        *,
        snapshots: Sequence[int],
        this_process_only: bool = False,
    ):
        self._folder, self._snapshots = folder.absolute(), list(snapshots)
        options = {"multiprocessing_options": one_process(), "create": False}
        self._options = options if this_process_only else {}
        self._damaged: set[int] = set()

    def __enter__(self) -> "LocalCheckpoints":
        silence_orbax()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_KeepSnapshots(self._snapshots, self._damaged),
            cleanup_tmp_directories=True,
            **self._options,
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
        left, the result is step 0, None and no notes.

        Args:
          like: arrays of the expected names, shapes and types, abstract or concrete.

        Raises:
          UserError: the saved tree has other names, shapes or types than `like`.
        """
        steps = self._manager.all_steps()
        return restore_newest(self._folder, steps, like, damaged=self._damaged)

    def wait(self) -> None:
        """Wait until everything that was saved is written.

        Raises:
          UserError: it could not be written.
        """
        with self._report_write_errors():
            self._manager.wait_until_finished()

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
        if job.is_primary():
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
    """Keep `preserved` steps; `damaged` is shared, and changes."""

    def __init__(self, snapshots: Sequence[int], damaged: Set[int]):
        self._snapshots, self._damaged = snapshots, damaged

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = preserved(steps, self._snapshots, self._damaged)
        return [step in kept for step in steps]


def preserved(
    steps: Iterable[int], snapshots: Sequence[int], damaged: Set[int]
) -> set[int]:
    """Return which of the saved steps are kept: see `LocalCheckpoints`.

    Damaged ones do not count among the newest. Those that the training has not reached
    again are kept, and replaced when it does.
    """
    intact = sorted(set(steps) - damaged)
    newest = intact[-1] if intact else 0
    is_finished = snapshots and newest == snapshots[-1]
    kept = set() if is_finished else set(intact[-NEWEST:])
    return {s for s in steps if s in kept or s in snapshots or s > newest}


def restore_newest(
    folder: Path, steps: Sequence[int], like: Any, *, damaged: set[int]
) -> tuple[int, Any, dict]:
    """Restore the newest intact step; see `LocalCheckpoints.restore`.

    Args:
      folder: the checkpoints of a run, on this machine or on object storage.
      steps: those that are there.
      like: see `restore_step`.
      damaged: steps found damaged are added to it.
    """
    for step in sorted(steps, reverse=True):
        try:
            tree, notes = restore_step(folder, step, like)
        except CorruptCheckpointError as e:
            damaged.add(step)
            progress.say(f"{e.what} Falling back to the previous checkpoint.")
            continue
        return step, tree, notes
    return 0, None, {}


def _mb(n: float) -> str:
    return f"{n / 1e6:.1f} MB"
