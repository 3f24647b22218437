"""A trained ensemble as a folder to share: weights, description, program, checksums.

    model.safetensors    the variables of each member
    bundle.json          what they are and how they are to be used
    program.stablehlo    the whole computation, for `jax.export.deserialize` alone
    README.md            the model card
    SHA256SUMS           of all of these; `sha256sum -c SHA256SUMS` checks them

Nothing in it is code that Python runs, and nothing is pickled.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lungseg_jax.checkpointing.manifest import has_valid_checksum, with_checksum
from lungseg_jax.checkpointing.weights import read_weights, write_weights
from lungseg_jax.inference.ensemble import model_card
from lungseg_jax.inference.ensemble.members import select_members
from lungseg_jax.inference.ensemble.stablehlo import export_program
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble, abstract_members
from lungseg_jax.runtime import cache
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run_folder import read_json, write_json, write_text

VERSION = 1
DESCRIPTION, WEIGHTS = "bundle.json", "model.safetensors"
PROGRAM, CARD, SUMS = "program.stablehlo", "README.md", "SHA256SUMS"
FILES = (WEIGHTS, DESCRIPTION, PROGRAM, CARD)
USE = ("model", "preprocessing", "threshold", "batch_size", "domain", "tuning")


def write_bundle(
    path: Path, trained: TrainedEnsemble, record: Mapping[str, Any]
) -> None:
    """Writes a bundle, whole or not at all.

    Args:
      path: of the folder, which must not exist.
      trained: the members that are to be in it.
      record: where they come from: "name", "data", "versions", and "evaluation", of which
        the names of slices are left out.

    Raises:
      UserError: it exists, or cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists already.", remedy="name another folder.")
    description = {"version": VERSION, "members": list(trained.members)}
    description |= {field: getattr(trained, field) for field in USE}
    description["decision"] = dataclasses.asdict(trained.decision())  # of all of them
    evaluation = record["evaluation"] and {
        key: value for key, value in record["evaluation"].items() if key != "slices"
    }
    description = with_checksum(description | dict(record) | {"evaluation": evaluation})
    with _made_whole(path) as folder:
        write_weights(folder / WEIGHTS, trained.members, {})
        write_json(folder / DESCRIPTION, description)
        (folder / PROGRAM).write_bytes(export_program(trained))
        write_text(folder / CARD, model_card.render_model_card(description))
        write_text(folder / SUMS, _sums(folder))


def is_bundle(path: Path) -> bool:
    """Whether a folder says that it is one."""
    return (path / DESCRIPTION).is_file()


def load_bundle(path: Path, members: str = "all") -> TrainedEnsemble:
    """The chosen members of a bundle.

    Raises:
      UserError: it is damaged, of a later version, or has no such members.
    """
    description = read_description(path)
    with contextlib.suppress(UserError):  # of use without a cache, too
        cache.enable_compilation_cache(cache.cache_root())
    here = description["members"]
    tuned = {
        name: decided["members"]
        for name, decided in description["tuning"].get("choices", {}).items()
        if set(decided["members"]) <= set(here) and name != "all"
    }
    names = select_members(members, snapshots=here, tuned=tuned)
    like = abstract_members(
        description["model"], description["preprocessing"]["preprocessing"]
    )
    networks, _ = read_weights(path / WEIGHTS, like)
    if networks.keys() != set(here):
        raise _damaged(path / WEIGHTS)
    use = {field: description[field] for field in USE}
    return TrainedEnsemble(path=path, members={n: networks[n] for n in names}, **use)


def read_description(path: Path) -> dict:
    """bundle.json.

    Raises:
      UserError: it is damaged, or of a later version.
    """
    description = read_json(path / DESCRIPTION)
    if not has_valid_checksum(description):
        raise _damaged(path / DESCRIPTION)
    if description["version"] != VERSION:
        raise UserError(
            f"{path} is a bundle of version {description['version']}.",
            rule=f"this program reads version {VERSION}.",
            remedy="install a newer lungseg_jax, or run the program in the bundle.",
        )
    return description


def verify_bundle(path: Path) -> list[str]:
    """The names of all files of a bundle, each found to be what was written.

    Raises:
      UserError: one is not, or is missing.
    """
    read_description(path)
    try:
        written = (path / SUMS).read_text()
    except (OSError, ValueError) as e:
        raise _damaged(path / SUMS) from e
    lost = [name for name in FILES if not (path / name).is_file()]
    if lost:
        raise _damaged(path / lost[0])
    sums, found = _sums(path), written.splitlines()
    lines = zip(FILES, sums.splitlines(), strict=True)
    wrong = [name for name, line in lines if line not in found]
    if wrong or written != sums:
        raise _damaged(path / (wrong[0] if wrong else SUMS))
    return [*FILES, SUMS]


def _sums(folder: Path) -> str:
    return "".join(f"{_digest(folder / name)}  {name}\n" for name in FILES)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _damaged(file: Path) -> UserError:
    return UserError(
        f"{file} is damaged or missing: it is not what was written.",
        rule="every file of a bundle is as SHA256SUMS says.",
        remedy="copy the bundle again, or export it again from its run.",
    )


@contextlib.contextmanager
def _made_whole(path: Path) -> Iterator[Path]:
    """A folder beside `path`, which takes its name where nothing went wrong."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as e:
        raise UserError(f"{path} cannot be written: {e.strerror}.") from e
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        os.rename(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
