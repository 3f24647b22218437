"""The checkpoints of a run on object storage."""

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lungseg_jax.checkpointing import manifest
from lungseg_jax.checkpointing.checkpoints import saved_steps
from lungseg_jax.checkpointing.local_checkpoints import (
    LocalCheckpoints,
    preserved,
    restore_newest,
)
from lungseg_jax.checkpointing.remote_steps import delete_step, upload_step
from lungseg_jax.runtime import job
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.object_storage import is_remote


class RemoteCheckpoints:
    """Like `LocalCheckpoints`, which writes them on this machine before they are copied.

    Orbax itself can write to gs://, but not to s3://. Only the primary process of a job
    writes, and all of them read: a training has the same arrays on every process.
    """

    def __init__(self, folder: Path, *, snapshots: Sequence[int]):
        self._folder, self._snapshots = folder, list(snapshots)
        self._damaged: set[int] = set()
        self._copying: Future | None = None

    def __enter__(self) -> "RemoteCheckpoints":
        self._scratch = tempfile.TemporaryDirectory()
        self._local = LocalCheckpoints(
            Path(self._scratch.name), snapshots=(), this_process_only=True
        )
        self._local.__enter__()
        self._copier = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *error) -> None:
        try:
            self.wait()
        finally:
            self._copier.shutdown()
            self._local.__exit__(*error)
            self._scratch.cleanup()

    def save(self, step: int, tree: Any, notes: Mapping[str, Any]) -> None:
        """See `LocalCheckpoints.save`; the copying goes on in the background.

        Raises:
          UserError: this save or the previous one could not be written.
        """
        self.wait()
        is_there = step in saved_steps(self._folder) and step not in self._damaged
        self._damaged.discard(step)
        if is_there:
            return
        if not job.is_primary():
            manifest.make_manifest(step, tree, notes)  # which refuses what diverged
            return
        self._local.save(step, jax.tree.map(np.array, tree), notes)
        self._copying = self._copier.submit(self._copy, step)

    def restore(self, like: Any) -> tuple[int, Any, dict]:
        """See `LocalCheckpoints.restore`."""
        steps = saved_steps(self._folder)
        return restore_newest(self._folder, steps, like, damaged=self._damaged)

    def wait(self) -> None:
        """Wait until everything that was saved is copied.

        Raises:
          UserError: it could not be copied.
        """
        copying, self._copying = self._copying, None
        try:
            if copying:
                copying.result()
        except OSError as e:
            raise UserError(
                f"a checkpoint could not be copied to {self._folder}: {e.strerror or e}",
                remedy="run the command again: it resumes from the newest checkpoint.",
            ) from e

    def check_room(self, like: Any) -> None:
        """Check the disk on which checkpoints are written before they are copied."""
        self._local.check_room(like)

    def _copy(self, step: int) -> None:
        self._local.wait()
        upload_step(Path(self._scratch.name), self._folder, step)
        steps = saved_steps(self._folder)
        for old in set(steps) - preserved(steps, self._snapshots, self._damaged):
            delete_step(self._folder, old)


AnyCheckpoints = LocalCheckpoints | RemoteCheckpoints


def open_checkpoints(folder: Path, *, snapshots: Sequence[int]) -> AnyCheckpoints:
    """Create the checkpoints of a run, wherever it is; to be used as a context."""
    kind = RemoteCheckpoints if is_remote(folder) else LocalCheckpoints
    return kind(folder, snapshots=snapshots)
