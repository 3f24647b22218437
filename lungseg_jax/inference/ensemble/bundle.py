"""A bundle: a trained ensemble as a folder to be shared.

    model.safetensors    the variables of each member
    bundle.json          their description and settings
    program.stablehlo    the complete computation, for `jax.export.deserialize`
    README.md            the model card
    SHA256SUMS           checksums of all of these; `sha256sum -c SHA256SUMS` verifies them

Nothing in it is code that Python runs, and nothing is pickled.
"""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lungseg_jax.checkpointing.checksums import file_digest
from lungseg_jax.checkpointing.weights import read_weights, write_weights
from lungseg_jax.data.preprocessing import Preprocessing
from lungseg_jax.inference.ensemble import model_card
from lungseg_jax.inference.ensemble.bundle_description import (
    VERSION,
    check_description,
    invalid_field,
)
from lungseg_jax.inference.ensemble.location import DESCRIPTION
from lungseg_jax.inference.ensemble.members import Every, select_members
from lungseg_jax.inference.ensemble.stablehlo import export_program
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble, abstract_members
from lungseg_jax.runtime import cache, compilation
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import atomic_folder, read_json, write_json, write_text
from lungseg_jax.runtime.outputs import check_outputs

WEIGHTS = "model.safetensors"
PROGRAM, CARD, SUMS = "program.stablehlo", "README.md", "SHA256SUMS"
FILES = (WEIGHTS, DESCRIPTION, PROGRAM, CARD)
FIELDS = (
    "model",
    "preprocessing",
    "threshold",
    "batch_size",
    "domain",
    "views",
    "tuning",
)


def write_bundle(
    path: Path, trained: TrainedEnsemble, record: Mapping[str, Any]
) -> None:
    """Write a bundle atomically.

    Args:
      path: the folder, which must not exist.
      trained: the members.
      record: their origin: "name", "data", "versions" and "evaluation", whose slice names
        are left out; where they are known, "license" and "datasets" for the model card.

    Raises:
      UserError: the folder exists, or cannot be written.
    """
    require_new(path)
    with atomic_folder(path) as folder:
        description = _write_networks(folder, trained, record)
        (folder / PROGRAM).write_bytes(export_program(trained))
        write_text(folder / CARD, model_card.render_model_card(description))
        write_text(folder / SUMS, _checksums(folder))


def require_same(
    path: Path, trained: TrainedEnsemble, record: Mapping[str, Any]
) -> None:
    """Check that a bundle is intact and holds exactly these networks and this description.

    Args:
      path: the folder of the bundle.
      trained, record: see `write_bundle`.

    Raises:
      UserError: it is damaged, or another bundle.
    """
    verify_bundle(path)
    with tempfile.TemporaryDirectory(prefix="lungseg-") as folder:
        _write_networks(Path(folder), trained, record)
        pairs = [(path / name, Path(folder, name)) for name in (WEIGHTS, DESCRIPTION)]
        if any(_checksum(there) != _checksum(new) for there, new in pairs):
            raise UserError(
                f"{path} exists already, and is not what this command would write.",
                rule="--push uploads an existing bundle only if it is identical.",
                remedy="repeat the options that wrote it, or name another folder.",
            )


def _write_networks(
    folder: Path, trained: TrainedEnsemble, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the weights and bundle.json, and return what the latter holds."""
    description = {"version": VERSION, "members": list(trained.members)}
    description |= {field: getattr(trained, field) for field in FIELDS}
    description["preprocessing"] = trained.preprocessing.to_json()
    description["decision"] = dataclasses.asdict(trained.settings())  # for all members
    evaluation = record["evaluation"] and {
        key: value for key, value in record["evaluation"].items() if key != "slices"
    }
    description |= dict(record) | {"evaluation": evaluation}
    write_weights(folder / WEIGHTS, trained.members, {})
    write_json(folder / DESCRIPTION, description)
    return description


def require_new(path: Path) -> None:
    """Check that a bundle can be written to a folder.

    Raises:
      UserError: it exists, or cannot be created.
    """
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists already.", remedy="name another folder.")
    check_outputs([], folders=[path], inputs=[], overwrite=False)


def load_bundle(path: Path, members: str | Every = "all") -> TrainedEnsemble:
    """Load members of a bundle.

    Raises:
      UserError: it is damaged, of a later version, or has no such members.
    """
    description = _read_description(path)
    if root := cache.root_if_possible():
        compilation.enable_compilation_cache(root)
    available = description["members"]
    tuned = {
        choice: settings["members"]
        for choice, settings in description["tuning"].get("choices", {}).items()
        if set(settings["members"]) <= set(available) and choice != "all"
    }
    names = select_members(members, snapshots=available, tuned=tuned)
    preprocessing = Preprocessing.from_json(description["preprocessing"])
    try:
        like = abstract_members(description["model"], preprocessing.channels)
    except (KeyError, TypeError, ValueError) as e:
        raise invalid_field("model", path / DESCRIPTION) from e
    networks, _ = read_weights(path / WEIGHTS, like)
    if networks.keys() != set(available):
        raise _damaged(path / WEIGHTS)
    fields = {field: description[field] for field in FIELDS}
    fields["preprocessing"] = preprocessing
    return TrainedEnsemble(
        path=path, members={name: networks[name] for name in names}, **fields
    )


def verify_bundle(path: Path) -> list[str]:
    """Verify every file of a bundle and return their names.

    Raises:
      UserError: a file is damaged or missing.
    """
    _read_description(path)
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise _damaged(path / missing[0])
    written, actual = _read_checksums(path), _checksums(path)
    lines = zip(FILES, actual.splitlines(), strict=True)
    wrong = [name for name, line in lines if line not in written.splitlines()]
    if wrong or written != actual:
        raise _damaged(path / (wrong[0] if wrong else SUMS))
    return [*FILES, SUMS]


def _read_description(path: Path) -> dict[str, Any]:
    """Read bundle.json and verify its checksum.

    Raises:
      UserError: it is damaged, of a later version, or says what no bundle says.
    """
    description = read_json(path / DESCRIPTION)
    if _checksum(path / DESCRIPTION) not in _read_checksums(path).splitlines():
        raise _damaged(path / DESCRIPTION)
    if isinstance(description, dict):
        description.setdefault("views", {})  # version 1 has none
    check_description(description, path / DESCRIPTION)
    return description


def _read_checksums(path: Path) -> str:
    try:
        return (path / SUMS).read_text()
    except (OSError, ValueError) as e:
        raise _damaged(path / SUMS) from e


def _checksums(folder: Path) -> str:
    return "".join(f"{_checksum(folder / name)}\n" for name in FILES)


def _checksum(file: Path) -> str:
    """Return the line of a file in SHA256SUMS."""
    return f"{file_digest(file)}  {file.name}"


def _damaged(file: Path) -> UserError:
    return UserError(
        f"{file} is damaged or missing.",
        rule="every file of a bundle matches its checksum in SHA256SUMS.",
        remedy="copy the bundle again, or export it again from its run.",
    )
