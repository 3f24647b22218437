"""config.json and run.json: what a run is, so that no other takes its folder."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata

import jax
from ml_collections import ConfigDict

from lungseg_jax.config import differences
from lungseg_jax.data.source import Source
from lungseg_jax.errors import UserError
from lungseg_jax.run_folder import RunFolder, read_json, write_json

Split = Mapping[str, Sequence[str]]  # names by "train", "validation", "test"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "lungseg-jax")


def open_run(
    config: ConfigDict, folder: RunFolder, source: Source, split: Split
) -> None:
    """Writes config.json and run.json, or finds the same ones there.

    Raises:
      UserError: the folder holds another run, or something else; nothing is changed.
    """
    resolved = config.to_dict()
    new_folder = "give this run a folder of its own with --workdir=DIR."
    if folder.config.exists() and folder.run.exists():
        changed = differences(read_json(folder.config), resolved)
        if changed:
            rows = "\n".join(f"  {row}" for row in changed)
            raise UserError(
                f"{folder.path} holds a run with other settings:\n{rows}",
                rule="a run is resumed with the settings it was started with.",
                remedy=new_folder,
            )
        if read_json(folder.run)["data"]["fingerprint"] != source.fingerprint:
            before = read_json(folder.config)["data"]["dir"] or "the phantom dataset"
            raise UserError(
                f"{folder.path} holds a run on other files than these: those of "
                f"{before}, as they were.",
                rule="a run is resumed on the files it was started with.",
                remedy=new_folder,
            )
        return
    if folder.path.exists() and (
        not folder.path.is_dir() or any(folder.path.iterdir()) and not _is_ours(folder)
    ):
        raise UserError(
            f"{folder.path} is not empty and holds no run.", remedy=new_folder
        )
    write_json(folder.run, _describe(source, split))
    write_json(folder.config, resolved)


def _describe(source: Source, split: Split) -> dict:
    return {
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "data": {
            "variant": source.variant,
            "fingerprint": source.fingerprint,
            "dtype": source.dtype,
        },
        "split": {name: list(names) for name, names in split.items()},
        "sha256": dict(source.digests),
    }


def _is_ours(folder: RunFolder) -> bool:
    """A start that was interrupted between its two files."""
    names = {p.name for p in folder.path.iterdir() if not p.name.startswith(".")}
    return names <= {folder.run.name}
