"""What tells a checkpoint that is whole from one that is not.

A seal is JSON: the step, notes of the training, of every array its name, type, shape and
SHA-256, and a SHA-256 of all that.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lungseg_jax.runtime.errors import UserError

REMEDY = (
    "start again in another folder, --workdir=DIR, with a lower --config.schedule.peak "
    "or --config.optimizer.weight_decay, or with --config.optimizer.clip_norm=1."
)


class CorruptCheckpointError(UserError):
    """A checkpoint is not what was saved.

    Args:
      where: its folder.
      why: what is wrong with it.
    """

    def __init__(self, where: Path, why: str):
        super().__init__(
            f"checkpoint {where} is damaged: {why}.",
            rule="every array is what was saved, to the bit.",
            remedy="restore the folder from a copy; or delete it and those of later "
            "steps, and run the training command again: it makes them anew.",
        )


def make_manifest(step: int, tree: Any, notes: Mapping[str, Any]) -> dict:
    """The seal of a tree of arrays; `notes` is JSON.

    Raises:
      UserError: an array is not finite: such a state is never saved.
    """
    arrays = {}
    for name, leaf in named_leaves(jax.device_get(tree)).items():
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            raise UserError(
                f"the training diverged: after step {step} {name} is not finite.",
                remedy=REMEDY,
            )
        arrays[name] = {"kind": dtype_and_shape(leaf), "sha256": array_digest(leaf)}
    content = {"step": step, "arrays": arrays, "notes": dict(notes)}
    return content | {"sha256": json_digest(content)}


def read_manifest(file: Path, step: int) -> dict:
    """The seal in a file, itself unbroken.

    Raises:
      Damaged: it is not, or is that of another step.
    """
    where = file.parent.parent
    try:
        found = json.loads(file.read_bytes())
        content = {key: found[key] for key in ("step", "arrays", "notes")}
        broken = found["sha256"] != json_digest(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise CorruptCheckpointError(where, "its seal cannot be read") from e
    if broken or content["step"] != step:
        raise CorruptCheckpointError(where, "its seal is broken")
    return content


def verify_arrays(sealed: Mapping[str, Any], tree: Any, where: Path) -> None:
    """Holds each array of a tree against the `arrays` of a seal, which may have more.

    Raises:
      Damaged: one is another than was sealed.
    """
    for name, leaf in named_leaves(jax.device_get(tree)).items():
        if name not in sealed or sealed[name]["kind"] != dtype_and_shape(leaf):
            raise CorruptCheckpointError(where, f"{name} is not what was saved")
        if sealed[name]["sha256"] != array_digest(leaf):
            raise CorruptCheckpointError(
                where, f"{name} has other values than were saved"
            )


def with_checksum(content: Mapping[str, Any]) -> dict:
    """A JSON object with a seal of its own, the SHA-256 of all else."""
    rest = {key: value for key, value in content.items() if key != "seal"}
    return rest | {"seal": json_digest(rest)}


def has_valid_checksum(content: Mapping[str, Any]) -> bool:
    """Whether it is what `sealed` gave."""
    return isinstance(content, dict) and content == with_checksum(content)


def named_leaves(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by name, as "params/down_1/layer/conv/kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def dtype_and_shape(leaf: Any) -> str:
    """Type and shape, as "float32[3, 3, 8, 8]"."""
    return f"{leaf.dtype}{list(leaf.shape)}"


def json_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def array_digest(leaf: Any) -> str:
    """SHA-256 of the values of an array."""
    return hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()
