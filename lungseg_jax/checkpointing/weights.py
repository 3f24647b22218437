"""The variables of networks in one safetensors file, with a seal; no pickle.

A tensor is named "<network>/params/down_1/...": names and shapes are those of the
checkpoints. The file's metadata has a JSON text `about` and a SHA-256 over it and every
tensor.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lungseg_jax.checkpointing import manifest
from lungseg_jax.runtime.errors import UserError

Trees = Mapping[str, Any]  # variables by the name of a network


def write_weights(path: Path, networks: Trees, about: Mapping[str, Any]) -> None:
    """Writes variables, whole or not at all.

    Args:
      path: a file of that name is replaced.
      networks: variables, by a name without a slash.
      about: JSON that `read_weights` gives back.

    Raises:
      UserError: it could not be written.
    """
    tensors = {
        n: np.ascontiguousarray(a) for n, a in manifest.named_leaves(networks).items()
    }
    text = json.dumps(about)
    metadata = {"about": text, "sha256": _digest(tensors, text)}
    beside = path.with_name(f".{path.name}.partial")
    try:
        beside.write_bytes(save(tensors, metadata))
        os.replace(beside, path)
    except OSError as e:
        beside.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {e.strerror}.") from e


def read_weights(path: Path, like: Any) -> tuple[dict[str, Any], dict]:
    """The networks in a file by name, and what it says about them.

    Args:
      path: of the file.
      like: variables with the names, shapes and types that each network is to have.

    Raises:
      UserError: it cannot be read, was changed since it was written, or holds networks of
        another kind.
    """
    damaged = UserError(
        f"{path} is damaged: it is not what was written.",
        remedy="restore it from a copy, or make it again.",
    )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist.") from e
    except (OSError, SafetensorError, TypeError, ValueError) as e:
        raise damaged from e
    text = metadata.get("about", "")
    if metadata.get("sha256") != _digest(tensors, text):
        raise damaged
    asked = {
        name: manifest.dtype_and_shape(leaf)
        for name, leaf in manifest.named_leaves(like).items()
    }
    networks: dict[str, Any] = {}
    for name in {name.partition("/")[0] for name in tensors}:
        found = {
            n: manifest.dtype_and_shape(a)
            for n, a in tensors.items()
            if n.startswith(f"{name}/")
        }
        if found != {f"{name}/{rest}": kind for rest, kind in asked.items()}:
            raise UserError(
                f"{path}: {name} is another network than its description says."
            )
        networks[name] = _tree(tensors, f"{name}/")
    return networks, json.loads(text)


def _tree(tensors: Mapping[str, np.ndarray], prefix: str) -> dict:
    tree: dict = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            *parents, last = name.removeprefix(prefix).split("/")
            branch = tree
            for parent in parents:
                branch = branch.setdefault(parent, {})
            branch[last] = tensor
    return tree


def _digest(tensors: Mapping[str, np.ndarray], text: str) -> str:
    content = {name: manifest.array_digest(a) for name, a in tensors.items()}
    return manifest.json_digest({"about": text, "tensors": content})
