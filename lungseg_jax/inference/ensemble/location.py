"""Where a trained ensemble is: a run, a bundle, that of the package, or one on the Hub.

It imports nothing heavy, so that commands refuse a wrong --run at once.
"""

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.extras import require_library
from lungseg_jax.runtime.files import folder_path
from lungseg_jax.runtime.object_storage import is_remote
from lungseg_jax.runtime.outputs import require_outside
from lungseg_jax.training.run_folder import RunFolder

PRETRAINED = "pretrained"  # names the bundle of the package: weights of phantoms only
DESCRIPTION = "bundle.json"
SCHEME = "hf://"  # hf://ORG/NAME, or hf://ORG/NAME@REVISION
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def locate(path: str | PathLike) -> Path:
    """Return the folder of a run or a bundle; PRETRAINED is that of the package.

    Raises:
      UserError: it is not a path; see also `folder_path`.
    """
    if not isinstance(path, str | PathLike):
        raise UserError(
            f"a {type(path).__name__} is not the path of a run or a bundle.",
            rule="one path, as text or as a pathlib.Path.",
            remedy="for several runs, `lungseg export --run=A --run=B BUNDLE` writes one "
            "ensemble, which can be loaded.",
        )
    if path == PRETRAINED:
        return Path(__file__).parent / PRETRAINED
    return folder_path(path)


def is_bundle(path: Path) -> bool:
    """Return whether a folder claims to be a bundle."""
    # To older versions of gcsfs, everything that cannot be listed as a folder is a file.
    return (path / DESCRIPTION).exists()


def is_on_hub(path: str | PathLike) -> bool:
    """Return whether a path is an address on the Hugging Face Hub."""
    return str(path).startswith(SCHEME)


def parse_hub_address(address: str) -> tuple[str, str | None]:
    """Return the repository and the revision, if any, of an address on the Hub.

    Raises:
      UserError: see `require_hub`.
    """
    repo, _, revision = address.removeprefix(SCHEME).partition("@")
    require_hub(repo, option=address)
    return repo, revision or None


def require_hub(repo: str, *, option: str) -> None:
    """Check that `repo` is a valid name and huggingface_hub is installed.

    Raises:
      UserError: one of them is not the case.
    """
    if not _REPO.fullmatch(repo):
        raise UserError(f"{option} does not name a repository.", rule="ORG/NAME.")
    require_library("huggingface_hub", extra="hub", needed_by=option)


def require_ensemble(path: str) -> None:
    """Check that a path names a run or a bundle; the Hub is not asked for one.

    Raises:
      UserError: it names neither.
    """
    if is_on_hub(path):
        parse_hub_address(path)
    elif not is_bundle(folder := locate(path)):
        RunFolder(folder).require(or_bundle=True)


def require_outside_ensemble(path: str, outputs: Sequence[Path]) -> None:
    """Check that no output replaces, or is put among, the files of a run or a bundle.

    Raises:
      UserError: one does.
    """
    if is_on_hub(path) or is_remote(folder := locate(path)):
        return
    is_bundled = is_bundle(folder)
    files = folder.iterdir() if is_bundled else RunFolder(folder).irreplaceable
    require_outside(outputs, [file for file in files if file.exists()])


def require_run(path: str | PathLike) -> Path:
    """Return the folder of a run.

    Raises:
      UserError: it is a bundle, or not a run folder.
    """
    folder = folder_path(path)
    if is_bundle(folder):
        raise UserError(
            f"{folder} is a bundle.",
            rule="a run is the folder of a training.",
            remedy="name the run that was exported; a bundle is shared as it is.",
        )
    return RunFolder(folder).require().path
