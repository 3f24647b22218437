"""Saving and restoring the training state; the only importer of Orbax.

Orbax restores a flipped bit without a word, so each state has a seal beside it.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as policies

from lungseg_jax.checkpointing import manifest
from lungseg_jax.checkpointing.manifest import CorruptCheckpointError
from lungseg_jax.runtime import distributed, progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.state import TrainState

STATE, SEAL = "state", "seal"
PARTS = ("params", "batch_stats", "opt_state")
NEWEST = 2  # steps that are kept beside the snapshots: one to fall back to


class Checkpoints:
    """The checkpoints below `folder`: the `snapshots`, and until the last the newest two.

    Writes go on in the background; leaving the context waits for the last of them.
    """

    def __init__(self, folder: Path, *, snapshots: Sequence[int]):
        self._folder, self._snapshots = folder.absolute(), list(snapshots)
        self._damaged: set[int] = set()

    def __enter__(self) -> "Checkpoints":
        _quiet()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Kept(self._snapshots),
            cleanup_tmp_directories=True,
        )
        with self._writing():
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        return self

    def __exit__(self, *_) -> None:
        try:
            with self._writing():
                self._manager.close()
        finally:
            self._discard_unfinished()

    def save(self, state: TrainState, notes: Mapping[str, Any]) -> None:
        """Writes the state under its own step; one that is there already is left alone.

        Returns once the arrays are copied, so that the next step may donate them.

        Args:
          state: what to save.
          notes: JSON that `restore` gives back.

        Raises:
          UserError: this save, or the one before, could not be written.
        """
        step = int(state.step)
        with self._writing():
            if step in self._damaged:
                self._manager.delete(step)
                self._damaged.remove(step)
            if step in self._manager.all_steps():
                return
            tree = _parts(state)
            seal = manifest.make_manifest(step, tree, notes)
            items = {STATE: ocp.args.PyTreeSave(tree), SEAL: ocp.args.JsonSave(seal)}
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, like: TrainState) -> tuple[TrainState, dict]:
        """The newest good state, placed as `like` is, and its notes.

        A damaged step is named and passed over. Where nothing was saved, or nothing good
        is left, it is `like` itself, with no notes.

        Raises:
          UserError: what was saved has other names, shapes or types than `like`.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                tree, notes = _read(self._manager, self._folder, step, _parts(like))
            except CorruptCheckpointError as e:
                self._damaged.add(step)
                progress.say(f"{e.what} Going back to the one before.")
                continue
            counter = jax.device_put(jnp.int32(step), like.step.sharding)
            return like.replace(step=counter, **tree), notes
        return like, {}

    def check_room(self, like: TrainState) -> None:
        """Refuses a disk that cannot hold the checkpoints of a whole run.

        Raises:
          UserError: with the space that is needed and what is free.
        """
        one = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(_parts(like)))
        kept = len(self._snapshots) + NEWEST + 1  # one more while it is written
        there = sum(
            file.stat().st_size
            for step in saved_steps(self._folder)
            for file in (self._folder / str(step)).rglob("*")
            if file.is_file()
        )
        # Orbax' own files, the seal; and beside all checkpoints the rows and the page.
        needed = kept * (1.1 * one + 2e5) + 1e6 - there
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise UserError(
                f"the disk of {self._folder} has {_mb(free)} free.",
                rule=f"{kept} checkpoints of {_mb(one)} need {_mb(needed)} more.",
                remedy="make room, or name another folder with --workdir=DIR.",
            )

    def _discard_unfinished(self) -> None:
        """What a write that failed has left; after the last, so that none goes on."""
        if distributed.is_primary():
            for path in self._folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A disk that takes no more is a UserError."""
        try:
            yield
        except (OSError, ValueError) as e:
            if isinstance(e, ValueError) and "os_error_code" not in str(e):
                raise  # else tensorstore's words for an errno
            good = [s for s in saved_steps(self._folder) if s not in self._damaged]
            raise UserError(
                f"a checkpoint could not be written to {self._folder}: "
                f"{str(e).splitlines()[0]}",
                rule=f"{_mb(shutil.disk_usage(self._folder).free)} are free there.",
                remedy="make room and run the command again"
                + (f": it goes on from step {good[-1]}." if good else "."),
            ) from e


class _Kept(policies.PreservationPolicy):
    def __init__(self, snapshots: Sequence[int]):
        self._snapshots = snapshots

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        finished = self._snapshots and steps[-1] == self._snapshots[-1]
        newest = [] if finished else steps[-NEWEST:]
        return [step in self._snapshots or step in newest for step in steps]


def restore_variables(folder: Path, step: int, like: Any) -> Any:
    """`params` and `batch_stats` of one checkpoint, without the optimizer.

    Args:
      folder: the run's checkpoints.
      step: which of them.
      like: variables of the same shapes, abstract or not; their sharding says where the
        arrays are to lie.

    Raises:
      UserError: there is no such step, it is damaged, or it has other names, shapes or
        types.
    """
    if step not in saved_steps(folder):
        raise UserError(
            f"{folder} has no step {step}.", rule=f"one of {saved_steps(folder)}."
        )
    with _reader(folder) as manager:
        return _read(manager, folder, step, dict(like))[0]


def verify_checkpoint(folder: Path, step: int) -> int:
    """Reads every array of a checkpoint, and says how many there are.

    Raises:
      Damaged: it is not what was saved.
    """
    where = folder / str(step)
    sealed = manifest.read_manifest(where / SEAL / "metadata", step)["arrays"]
    with _reader(folder) as manager, _reading(where):
        with ocp.PyTreeCheckpointer() as reader:
            structure = reader.metadata(where.absolute() / STATE).item_metadata.tree
        on_host = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), structure
        )
        tree = _restore(manager, step, ocp.args.PyTreeRestore(restore_args=on_host))
    manifest.verify_arrays(sealed, tree, where)
    lost = sorted(sealed.keys() - manifest.named_leaves(tree).keys())
    if lost:
        raise CorruptCheckpointError(where, f"{lost[0]} is missing")
    return len(sealed)


def saved_steps(folder: Path) -> list[int]:
    """The steps that were saved completely, in order; none where there is no folder."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))


def _read(manager, folder: Path, step: int, like: Any) -> tuple[Any, dict]:
    where = folder / str(step)
    seal = manifest.read_manifest(where / SEAL / "metadata", step)
    for name, leaf in manifest.named_leaves(like).items():
        found = seal["arrays"].get(name, {"kind": "missing"})["kind"]
        if found != manifest.dtype_and_shape(leaf):
            raise UserError(
                f"{where} holds another network: {name} is {found}, and "
                f"{manifest.dtype_and_shape(leaf)} is asked for.",
                remedy="give the run a folder of its own with --workdir=DIR.",
            )
    args = ocp.args.PyTreeRestore(
        item=like,
        restore_args=ocp.checkpoint_utils.construct_restore_args(like),
        partial_restore=True,
    )
    with _reading(where):
        tree = _restore(manager, step, args)
    manifest.verify_arrays(seal["arrays"], tree, where)
    return tree, seal["notes"]


def _restore(manager, step: int, args) -> Any:
    return manager.restore(step, args=ocp.args.Composite(**{STATE: args}))[STATE]


def _reader(folder: Path) -> ocp.CheckpointManager:
    _quiet()
    me = jax.process_index()  # others do not wait for the one that reads
    options = ocp.CheckpointManagerOptions(
        read_only=True,
        create=False,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}
        ),
    )
    return ocp.CheckpointManager(folder.absolute(), options=options)


@contextlib.contextmanager
def _reading(where: Path) -> Iterator[None]:
    try:
        yield
    except Exception as e:  # Orbax raises a bare one for an array file that is damaged
        words = str(e).strip().splitlines() or [type(e).__name__]
        raise CorruptCheckpointError(where, words[0][:120]) from e


def _parts(state: TrainState) -> dict[str, Any]:
    return {part: getattr(state, part) for part in PARTS}


def _mb(n: float) -> str:
    return f"{n / 1e6:.1f} MB"


def _quiet() -> None:
    logging.set_verbosity(logging.FATAL)  # ten lines a save, a traceback an error
