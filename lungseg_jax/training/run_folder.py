"""The files of a run: their names, their locking, and the rows of metrics.jsonl."""

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from lungseg_jax.runtime import object_storage, progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import folder_path, write_text
from lungseg_jax.runtime.locks import NO_LOCKS
from lungseg_jax.runtime.outputs import check_writable
from lungseg_jax.runtime.temporaries import remove_temporaries

NOT_WRITABLE = (
    "make it writable, or name another run folder; that of a training is --workdir=DIR."
)

AVERAGE = "average"  # the network whose weights are the mean of all snapshots'


class RunFolder:
    """A run as plain files below `path`; docs/reference/run_folder.md describes each.

    Args:
      path: the folder, on this machine or on object storage.

    Raises:
      UserError: it cannot be the path of a run.
    """

    def __init__(self, path: str | os.PathLike):
        self.path: Path = folder_path(path)
        self._absolute = os.path.abspath(self.path)
        if not self.is_remote and "\\" in self._absolute:
            raise UserError(
                f"the path of a run cannot have a backslash: {self._absolute}.",
                rule="TensorStore, which writes checkpoints, takes it for a slash.",
                remedy="name another folder, or rename this one.",
            )
        self.config = self.path / "config.json"
        self.run = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.average = self.path / f"{AVERAGE}.safetensors"
        self.tuning = self.path / "tuning.json"
        self.evaluation = self.path / "evaluation.json"
        self.report = self.path / "report"
        self.page = self.report / "index.html"  # written last
        self._lock = self.path / ".lock"

    @property
    def irreplaceable(self) -> list[Path]:
        """The files and folders that only the training can make: not the page."""
        files = [self.config, self.run, self.metrics, self.average]
        return [*files, self.checkpoints, self.tuning, self.evaluation]

    @property
    def name(self) -> str:
        """The name of the folder, also if its path is "."."""
        return self.path.name if self.is_remote else os.path.basename(self._absolute)

    @property
    def is_remote(self) -> bool:
        """Whether the folder is on object storage."""
        return object_storage.is_remote(self.path)

    @property
    def holds_run(self) -> bool:
        """Whether it holds a run. config.json is written last: run.json is not enough."""
        return self.config.exists() and self.run.exists()

    def require(self, *, or_bundle: bool = False) -> "RunFolder":
        """Return the folder itself, if it holds a run.

        Args:
          or_bundle: whether the user could have named a bundle too, for the message.

        Raises:
          UserError: it does not, or cannot be read.
        """
        for file in (self.config, self.run):
            with self._reading():
                is_there = file.exists()
            if not is_there:
                why = f"has no {file.name}" if self.path.exists() else "does not exist"
                if not self.is_remote and self.path.is_file():
                    why = "is a file"
                kinds = "a run folder"
                rule = "a run folder is the --workdir of a training"
                if or_bundle:
                    kinds += " or a bundle"
                    rule += ", a bundle is what `lungseg export` writes"
                raise UserError(
                    f"{self.path} is not {kinds}: it {why}.",
                    rule=f"{rule}.",
                    remedy="check the path; without --workdir, a training writes to runs/.",
                )
        return self

    def require_writable(self) -> None:
        """Check early that the folder can be claimed, as far as can be told beforehand.

        Raises:
          UserError: it is not writable, or cannot be created.
        """
        if not self.is_remote:
            check_writable(self.path, remedy=NOT_WRITABLE)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder, so that no other process can; the claim dies with the process.

        Object storage has no locks: there, a claim only names the process for others. On
        a file system without them, it only warns.

        Raises:
          UserError: another process holds it.
        """
        if self.is_remote:
            with self._announced():
                yield
            return
        self.require_writable()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self._lock.open("a+", errors="replace")
        except OSError as e:
            raise UserError(
                f"{self._lock} cannot be written: {e.strerror}.",
                remedy=NOT_WRITABLE,
            ) from e
        with lock:
            if not self._try_lock(lock):
                lock.seek(0)
                raise UserError(
                    f"{self.path} is in use by {lock.read() or 'another process'}.",
                    rule="only one training at a time writes to a run folder.",
                    remedy="wait for it, stop it, or name another with --workdir=DIR.",
                )
            lock.truncate(0)
            lock.write(_this_process())
            lock.flush()
            try:
                for folder in (self.path, self.report):
                    remove_temporaries(folder)
                yield
            finally:
                self._lock.unlink(missing_ok=True)

    def _try_lock(self, lock: TextIO) -> bool:
        """Lock the lock file; False if another process holds it or has just deleted it.

        Raises:
          UserError: it cannot be locked for another reason.
        """
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(lock.fileno()).st_ino == self._lock.stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError as e:
            if e.errno not in NO_LOCKS:
                raise UserError(f"{self._lock} cannot be locked: {e.strerror}.") from e
            progress.say(
                f"WARNING: the file system of {self.path} has no locks. Two trainings "
                "must not write to one folder."
            )
            return True

    @contextlib.contextmanager
    def _announced(self) -> Iterator[None]:
        """Name this process in the folder for the block, and say who was named before."""
        with self._reading():
            owner = self._lock.read_text() if self._lock.exists() else ""
        if owner:
            progress.say(
                f"{self.path} was in use by {owner}, which is still running or was "
                "killed. Two trainings must not write to one folder."
            )
        write_text(self._lock, _this_process())
        try:
            yield
        finally:
            with object_storage.as_os_errors():
                self._lock.unlink(missing_ok=True)

    def append_metrics(self, rows: Sequence[dict]) -> None:
        """Append rows to metrics.jsonl: all of them or, if the disk is full, none.

        On object storage, that writes the file again.

        Raises:
          OSError: none was written.
        """
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if self.is_remote:
            with object_storage.as_os_errors():
                before = self.metrics.read_bytes() if self.metrics.exists() else b""
                self.metrics.write_bytes(before + text)
            return
        with self.metrics.open("ab", buffering=0) as f:
            before = f.tell()
            try:
                written = f.write(text)
                if written != len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                f.truncate(before)
                raise

    def read_metrics(self) -> list[dict]:
        """Read the rows of metrics.jsonl, ignoring a truncated last line.

        Raises:
          UserError: another line is damaged, or the file cannot be read.
        """
        with self._reading():
            content = self.metrics.read_bytes() if self.metrics.exists() else b""
        rows = []
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                is_row = isinstance(row["step"], int) and isinstance(row["kind"], str)
            except (ValueError, KeyError, TypeError, RecursionError):
                is_row = False
            if not is_row:
                raise UserError(
                    f"line {number} of {self.metrics} is damaged.",
                    rule='each line is one JSON object with a "step" and a "kind".',
                    remedy="delete that line and run the command again.",
                )
            rows.append(row)
        return rows

    def forget_metrics_after(self, step: int) -> None:
        """Drop the rows of updates that were lost and will be repeated."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what a disk or object storage raises in the block into a plain error."""
        try:
            with object_storage.as_os_errors():
                yield
        except OSError as e:
            where = e.filename or self.path
            raise UserError(f"{where} cannot be read: {e.strerror or e}.") from e


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
