"""Reading saved checkpoints: trees of arrays by step, verified against their manifests.

Orbax restores a flipped bit without complaint, so a checksum manifest is saved beside
each tree.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from lungseg_jax.checkpointing import manifest
from lungseg_jax.checkpointing.manifest import CorruptCheckpointError
from lungseg_jax.checkpointing.remote_steps import downloaded_step, remote_steps
from lungseg_jax.runtime import memory
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.object_storage import is_remote

STATE, MANIFEST = "state", "seal"  # the items of a checkpoint on disk


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
    return restore_step(folder, step, dict(like))[0]


def restore_step(folder: Path, step: int, like: Any) -> tuple[Any, dict]:
    """Restore a checkpoint that exists, on this machine or on object storage.

    The other processes do not take part.

    Returns:
      The tree, placed like `like`, and the notes.

    Raises:
      UserError: it is damaged, or has other names, shapes or types.
    """
    with _at_hand(folder, step) as local:
        return _read_step(local, step, like)


def verify_checkpoint(folder: Path, step: int) -> int:
    """Read and verify every array of a checkpoint; return their number.

    Raises:
      CorruptCheckpointError: an array differs from what was saved, or is missing.
    """
    with _at_hand(folder, step) as local:
        return _verify(local, step)


def saved_steps(folder: Path) -> list[int]:
    """Return the steps that were saved completely, in order; empty without a folder."""
    if is_remote(folder):
        return remote_steps(folder)
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))


def one_process() -> ocp.options.MultiprocessingOptions:
    """Return options of Orbax with which the other processes do not take part."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}
    )


def silence_orbax() -> None:
    """Print nothing of Orbax: ten lines per save, a traceback per error."""
    logging.set_verbosity(logging.FATAL)


def _read_step(folder: Path, step: int, like: Any) -> tuple[Any, dict]:
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
    with _report_read_errors(where), _reader() as reader:
        tree = reader.restore(where.absolute() / STATE, args=args)
    manifest.verify_arrays(saved["arrays"], tree, where)
    return tree, saved["notes"]


def _verify(folder: Path, step: int) -> int:
    where = folder / str(step)
    arrays = manifest.read_manifest(where / MANIFEST / "metadata", step)["arrays"]
    state = where.absolute() / STATE
    with _report_read_errors(where), _reader() as reader:
        structure = reader.metadata(state).item_metadata.tree
        on_host = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), structure
        )
        tree = reader.restore(state, args=ocp.args.PyTreeRestore(restore_args=on_host))
    manifest.verify_arrays(arrays, tree, where)
    missing = sorted(arrays.keys() - manifest.named_leaves(tree).keys())
    if missing:
        raise CorruptCheckpointError(where, f"{missing[0]} is missing")
    return len(arrays)


def _reader() -> ocp.Checkpointer:
    silence_orbax()
    options = {"multiprocessing_options": one_process()}
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options), **options)


def _at_hand(folder: Path, step: int) -> contextlib.AbstractContextManager[Path]:
    """Return a context of the folder itself, or of a copy of its step on this machine."""
    if is_remote(folder):
        return downloaded_step(folder, step)
    return contextlib.nullcontext(folder)


@contextlib.contextmanager
def _report_read_errors(where: Path) -> Iterator[None]:
    try:
        yield
    except Exception as e:  # Orbax raises a bare Exception for a damaged array file
        if memory.is_exhausted(e):
            raise
        why = (str(e).strip().splitlines() or [type(e).__name__])[0][:120].rstrip(".")
        code = re.search(r"os_error_code='(\d+)'", str(e))  # of tensorstore
        number = int(code[1]) if code else getattr(e, "errno", None)
        if number and number not in manifest.ABSENT:
            raise manifest.unreadable(where, why) from e
        raise CorruptCheckpointError(where, why) from e
