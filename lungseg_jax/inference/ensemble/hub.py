"""Bundles on the Hugging Face Hub: hf://ORG/NAME, or hf://ORG/NAME@REVISION.

huggingface_hub, of the extra [hub], is imported when such an address is used. It keeps
what it has downloaded and asks the Hub only whether that is current.
"""

from os import PathLike
from pathlib import Path

from lungseg_jax.inference.ensemble.bundle import FILES, SUMS, verify_bundle
from lungseg_jax.inference.ensemble.location import (
    is_bundle,
    is_on_hub,
    locate,
    parse_hub_address,
    require_hub,
)
from lungseg_jax.runtime.errors import UserError


def locate_or_download(path: str | PathLike) -> Path:
    """Return the folder of a run or a bundle, downloaded and verified if it is on the Hub.

    Args:
      path: as for `locate`, or an address on the Hub.

    Raises:
      UserError: it cannot be downloaded, or is damaged.
    """
    if not is_on_hub(path):
        return locate(path)
    repo, revision = parse_hub_address(str(path))
    import huggingface_hub

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=[*FILES, SUMS]
            )
        )
    except Exception as e:  # of several libraries
        raise _failed(f"{path} cannot be downloaded", e) from e
    if not is_bundle(folder):
        raise UserError(
            f"{path} is not a bundle that `lungseg export` wrote.",
            rule="a repository with a bundle.json.",
            remedy="name one that was pushed by lungseg export --push.",
        )
    try:
        verify_bundle(folder)
    except UserError as e:
        remedy = (
            "remove it from the cache of huggingface_hub and run the command again."
        )
        raise UserError(f"{path}: {e.what}", rule=e.rule, remedy=remedy) from e
    return folder


def push_bundle(folder: Path, repo: str) -> str:
    """Upload the files of a bundle as a new revision of a repository, private if it is new.

    Returns:
      The address of the repository.

    Raises:
      UserError: it cannot be uploaded.
    """
    require_hub(repo, option=f"--push={repo}")
    import huggingface_hub

    try:
        url = huggingface_hub.create_repo(repo, private=True, exist_ok=True)
        huggingface_hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[*FILES, SUMS],
            commit_message=f"lungseg export {folder.name}",
        )
    except Exception as e:  # of several libraries
        raise _failed(f"{folder} is complete, but cannot be pushed to {repo}", e) from e
    return str(url)


def _failed(what: str, error: Exception) -> UserError:
    return UserError(
        f"{what}: {type(error).__name__}: {error}",
        remedy="check the name and the connection; `hf auth login` gives access to private "
        "repositories.",
    )
