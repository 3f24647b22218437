"""Checkpoints on object storage, as folders of objects that are copied one by one.

A step is complete when it has the object COMMIT, which is written last and deleted first.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lungseg_jax.checkpointing.manifest import CorruptCheckpointError
from lungseg_jax.runtime.object_storage import as_os_errors, download, upload

# Orbax's own name for it, so that it can read gs:// itself.
COMMIT = "commit_success.txt"


def remote_steps(folder: Path) -> list[int]:
    """Return the steps that are complete, in order.

    Raises:
      OSError: they cannot be listed.
    """
    with as_os_errors():
        names = [path.parent.name for path in folder.glob(f"*/{COMMIT}")]
    return sorted(int(name) for name in names if name.isdecimal())


def upload_step(local: Path, folder: Path, step: int) -> None:
    """Copy a step from `local`, where it is complete, to object storage.

    Raises:
      OSError: it cannot be written.
    """
    delete_step(folder, step)  # what an upload that was interrupted has left
    source, target = local / str(step), folder / str(step)
    files = {path for path in source.rglob("*") if path.is_file()}
    for file in sorted(files - {source / COMMIT}):  # Orbax has written one here, too
        upload(file, target / file.relative_to(source).as_posix())
    with as_os_errors():
        (target / COMMIT).write_text("complete\n")


def delete_step(folder: Path, step: int) -> None:
    """Delete a step, if it is there.

    Raises:
      OSError: it cannot be deleted.
    """
    where = folder / str(step)
    with as_os_errors():
        (where / COMMIT).unlink(missing_ok=True)
        where.rmtree(missing_ok=True)


@contextlib.contextmanager
def downloaded_step(folder: Path, step: int) -> Iterator[Path]:
    """Yield a folder of this machine with a copy of a step.

    Raises:
      CorruptCheckpointError: that of the block, about the step on object storage.
      OSError: the step cannot be read.
    """
    where = folder / str(step)
    with tempfile.TemporaryDirectory() as local:
        try:
            download(where, Path(local, str(step)))
            yield Path(local)
        except FileNotFoundError as e:
            raise CorruptCheckpointError(where, "it has lost a file") from e
        except CorruptCheckpointError as e:
            raise CorruptCheckpointError(where, e.why) from e
