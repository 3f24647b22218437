"""Network variables in one safetensors file, with a checksum and without pickle.

A tensor is named "<network>/params/down_1/...": names and shapes are those of the
checkpoints. The file's metadata has a JSON text `about` and a SHA-256 over that text and
every tensor.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lungseg_jax.checkpointing.checksums import array_digest, json_digest
from lungseg_jax.checkpointing.manifest import dtype_and_shape, named_leaves
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import atomic_write
from lungseg_jax.runtime.object_storage import local_copy

Trees = Mapping[str, Any]  # variables by the name of a network


def write_weights(path: Path, networks: Trees, about: Mapping[str, Any]) -> None:
    """Write variables atomically.

    Args:
      path: the file, replaced if it exists.
      networks: variables, by a name without a slash.
      about: JSON that `read_weights` returns.

    Raises:
      UserError: the file cannot be written.
    """
    tensors = {
        name: np.ascontiguousarray(leaf)
        for name, leaf in named_leaves(networks).items()
    }
    text = json.dumps(about)
    metadata = {"about": text, "sha256": _digest(tensors, text)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(_with_sorted_metadata(save(tensors, metadata)))


def read_weights(path: Path, like: Any) -> tuple[dict[str, Any], dict]:
    """Read the networks of a file by name, and the JSON stored with them.

    Args:
      path: the file.
      like: variables with the names, shapes and types that each network must have.

    Raises:
      UserError: the file cannot be read, has changed since it was written, holds
        different networks, or values that are not finite.
    """
    damaged = UserError(
        f"{path} is damaged: it is not what was written.",
        remedy="restore it from a copy, or create it again.",
    )
    try:
        with local_copy(path) as copy, safe_open(copy, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist.") from e
    except (OSError, SafetensorError, TypeError, ValueError) as e:
        raise damaged from e
    text = metadata.get("about", "")
    if metadata.get("sha256") != _digest(tensors, text):
        raise damaged
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise UserError(
            f"{path} has weights that are not numbers.",
            rule="finite weights: others segment nothing.",
            remedy="use another snapshot, or train again.",
        )
    stored = {name: dtype_and_shape(tensor) for name, tensor in tensors.items()}
    expected = {
        f"{network}/{name}": dtype_and_shape(leaf)
        for network in {name.partition("/")[0] for name in tensors}
        for name, leaf in named_leaves(like).items()
    }
    if wrong := stored.items() ^ expected.items():
        raise UserError(f"{path}: {min(wrong)[0]} does not match its description.")
    return unflatten_dict(tensors, sep="/"), json.loads(text)


def _with_sorted_metadata(file: bytes) -> bytes:
    """Return a safetensors file with its metadata in order, which `save` leaves to chance.

    So equal weights are equal files. The header is JSON, preceded by its length in eight
    bytes, and spaces fill it up to a multiple of eight.
    """
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return len(text).to_bytes(8, "little") + text + file[8 + length :]


def _digest(tensors: Mapping[str, np.ndarray], text: str) -> str:
    digests = {name: array_digest(tensor) for name, tensor in tensors.items()}
    return json_digest({"about": text, "tensors": digests})
