"""Checksum manifests that detect corrupted checkpoints.

A manifest is JSON: the step, the training's notes, the name, dtype, shape and SHA-256 of
every array, and a SHA-256 of all of that.
"""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lungseg_jax.checkpointing.checksums import array_digest, json_digest
from lungseg_jax.runtime.errors import UserError

# The file is lost, or it is something else.
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
DIVERGED = (
    "start again in another folder, --workdir=DIR, with a lower --config.schedule.peak "
    "or --config.optimizer.weight_decay, or with --config.optimizer.clip_norm=1."
)


class CorruptCheckpointError(UserError):
    """A checkpoint differs from what was saved.

    Args:
      where: its folder.
      why: what is wrong with it.
    """

    def __init__(self, where: Path, why: str):
        super().__init__(
            f"checkpoint {where} is damaged: {why}.",
            rule="every array equals what was saved, bit for bit.",
            remedy="restore the folder from a copy; or delete it and those of later "
            "steps, and run the training command again: it recreates them.",
        )
        self.why = why


def unreadable(where: Path, why: str) -> UserError:
    """Return the error about a checkpoint that the disk fails to read.

    It may be intact, and so is not skipped and replaced like one that is damaged.
    """
    return UserError(
        f"checkpoint {where} cannot be read: {why}.",
        remedy="run the command again when the disk is readable again.",
    )


def make_manifest(step: int, tree: Any, notes: Mapping[str, Any]) -> dict:
    """Return the manifest of a tree of arrays; `notes` is JSON.

    Raises:
      UserError: an array is not finite; such a state is never saved.
    """
    arrays = {}
    for name, leaf in named_leaves(jax.device_get(tree)).items():
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            raise UserError(
                f"the training diverged: after step {step} {name} is not finite.",
                remedy=DIVERGED,
            )
        arrays[name] = {"kind": dtype_and_shape(leaf), "sha256": array_digest(leaf)}
    content = {"step": step, "arrays": arrays, "notes": dict(notes)}
    return content | {"sha256": json_digest(content)}


def read_manifest(file: Path, step: int) -> dict:
    """Read a manifest and verify its own checksum.

    Raises:
      CorruptCheckpointError: it is missing, damaged, or belongs to another step.
      UserError: the disk fails to read it.
    """
    where = file.parent.parent
    try:
        manifest = json.loads(file.read_bytes())
        content = {key: manifest[key] for key in ("step", "arrays", "notes")}
        is_valid = manifest["sha256"] == json_digest(content)
    except OSError as e:
        if e.errno not in ABSENT:
            raise unreadable(where, e.strerror or str(e)) from e
        raise CorruptCheckpointError(where, "its manifest cannot be read") from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise CorruptCheckpointError(where, "its manifest cannot be read") from e
    if not is_valid or content["step"] != step:
        raise CorruptCheckpointError(where, "its manifest is damaged")
    return content


def verify_arrays(manifest: Mapping[str, Any], tree: Any, where: Path) -> None:
    """Verify every array of a tree; the manifest may list more.

    Args:
      manifest: the "arrays" of a manifest.
      tree: the arrays as restored.
      where: the folder of the checkpoint, for messages.

    Raises:
      CorruptCheckpointError: an array differs from what was saved.
    """
    for name, leaf in named_leaves(jax.device_get(tree)).items():
        if name not in manifest or manifest[name]["kind"] != dtype_and_shape(leaf):
            raise CorruptCheckpointError(where, f"{name} is not what was saved")
        if manifest[name]["sha256"] != array_digest(leaf):
            raise CorruptCheckpointError(where, f"{name} has other values than saved")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the arrays of a tree by name, such as "params/down_1/layer/conv/kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def tree_digest(tree: Any) -> str:
    """Return the SHA-256 of a tree of arrays, by their names and values."""
    digests = {name: array_digest(leaf) for name, leaf in named_leaves(tree).items()}
    return json_digest(digests)


def dtype_and_shape(leaf: Any) -> str:
    """Return, for example, "float32[3, 3, 8, 8]"."""
    return f"{leaf.dtype}{list(leaf.shape)}"
