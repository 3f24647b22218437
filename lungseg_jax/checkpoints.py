"""Saving and restoring the training state; the only importer of Orbax."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as policies

from lungseg_jax.errors import UserError
from lungseg_jax.train_state import TrainState

ITEM = "state"
PARTS = ("params", "batch_stats", "opt_state")


@contextlib.contextmanager
def open_checkpoints(
    folder: Path, *, snapshots: Sequence[int]
) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints below `folder`; keeps the `snapshots` for ever, and the newest.

    Writes go on in the background; leaving the context waits for the last of them.
    """
    _quiet()
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
            [policies.CustomSteps(list(snapshots)), policies.LatestN(1)]
        ),
        cleanup_tmp_directories=True,
    )
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        yield manager


def save(manager: ocp.CheckpointManager, state: TrainState) -> None:
    """Writes the state under its own step; a step that is there already is left alone.

    Returns once the arrays are copied, so that the next step may donate them.
    """
    step = int(state.step)
    if step not in manager.all_steps():
        tree = {part: getattr(state, part) for part in PARTS}
        manager.save(step, args=_item(ocp.args.PyTreeSave(tree)), force=True)


def restore(manager: ocp.CheckpointManager, like: TrainState) -> TrainState:
    """The newest state, placed as `like` is; `like` itself where nothing was saved.

    Raises:
      UserError: what was saved has other names, shapes or types than `like`.
    """
    step = manager.latest_step()
    if step is None:
        return like
    tree = _restore(manager, step, {part: getattr(like, part) for part in PARTS})
    counter = jax.device_put(jnp.int32(step), like.step.sharding)
    return like.replace(step=counter, **tree)


def restore_variables(folder: Path, step: int, like: Any) -> Any:
    """`params` and `batch_stats` of one checkpoint, without the optimizer.

    Args:
      folder: the run's checkpoints.
      step: which of them.
      like: variables of the same shapes, abstract or not; their sharding says where the
        arrays are to lie.

    Raises:
      UserError: there is no such step, or it has other names, shapes or types.
    """
    _quiet()
    if step not in saved_steps(folder):
        raise UserError(
            f"{folder} has no step {step}.", rule=f"one of {saved_steps(folder)}."
        )
    me = jax.process_index()  # others do not wait for the one that reads
    options = ocp.CheckpointManagerOptions(
        read_only=True,
        create=False,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}
        ),
    )
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        return _restore(manager, step, dict(like))


def saved_steps(folder: Path) -> list[int]:
    """The steps that were saved completely, in order; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())


def _restore(manager, step: int, like: Any) -> Any:
    _check_same_arrays(manager.directory, step, _stored_arrays(manager, step), like)
    args = ocp.args.PyTreeRestore(
        item=like,
        restore_args=ocp.checkpoint_utils.construct_restore_args(like),
        partial_restore=True,
    )
    return manager.restore(step, args=_item(args))[ITEM]


def _stored_arrays(manager, step: int) -> dict[str, str]:
    with ocp.PyTreeCheckpointer() as reader:
        metadata = reader.metadata(manager.directory / str(step) / ITEM)
    return _arrays(metadata.item_metadata.tree)


def _check_same_arrays(folder, step, stored: dict[str, str], like: Any) -> None:
    """Orbax names no array when a shape differs, and casts another type in silence."""
    for name, wanted in _arrays(like).items():
        if stored.get(name) != wanted:
            raise UserError(
                f"{folder}/{step} holds another network: {name} is "
                f"{stored.get(name, 'missing')}, and {wanted} is asked for.",
                remedy="give the run a folder of its own with --workdir=DIR.",
            )


def _arrays(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{leaf.dtype}{list(leaf.shape)}"
        )
        for path, leaf in leaves
    }


def _item(args):
    return ocp.args.Composite(**{ITEM: args})


def _quiet() -> None:
    logging.set_verbosity(logging.ERROR)  # Orbax reports each save in ten lines
