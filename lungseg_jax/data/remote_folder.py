"""Data folders on object storage: they are copied into the cache, and read there."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from lungseg_jax.data.data_folder import IMAGES, MASKS
from lungseg_jax.data.metadata import TABLE
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import read_json, write_json
from lungseg_jax.runtime.locks import exclusive_lock
from lungseg_jax.runtime.object_storage import as_os_errors, is_remote

FILES_AT_ONCE = 256
RECORD = "copied.json"  # the version of each file that was copied completely


def local_data_folder(folder: Path, cache: Path | None) -> Path:
    """Return a data folder itself, or an up-to-date copy if it is on object storage.

    Only files that are new, that have changed, or that the copy has lost are copied. A
    copy that was interrupted is continued.

    Args:
      folder: on this machine or on object storage.
      cache: the root of the caches, or None if there is none.

    Raises:
      UserError: the folder does not exist there, or cannot be copied.
    """
    if not is_remote(folder):
        return folder
    if cache is None:
        raise UserError(
            f"{folder} cannot be copied without a cache folder.",
            remedy="set XDG_CACHE_HOME to a folder that can be written.",
        )
    address = os.fspath(folder)
    name = f"copied/{hashlib.sha256(address.encode()).hexdigest()[:16]}"
    try:
        with exclusive_lock(cache / f"{name}.lock"):
            _update(cache / name / folder.name, address, cache / name / RECORD)
    except OSError as e:
        raise UserError(
            f"{address} could not be copied to {cache / name}: {e.strerror or e}",
            remedy="check the connection and the disk, and run the command again: it "
            "continues.",
        ) from e
    return cache / name / folder.name


def _update(target: Path, address: str, record: Path) -> None:
    import fsspec

    with as_os_errors():
        storage, root = fsspec.core.url_to_fs(address)
        found = storage.find(root, maxdepth=2, detail=True)
    there = {
        file: info
        for path, info in found.items()
        if _is_ours(file := path.removeprefix(root).strip("/"))
    }
    if not there:
        raise UserError(
            f"{address} has no files in {IMAGES}/ and {MASKS}/.",
            rule=f"a folder that holds {IMAGES}/ and {MASKS}/ with equal file names.",
        )
    versions = {file: _version(info) for file, info in there.items()}
    copied = read_json(record) if record.exists() else {}
    for path in [path for path in target.rglob("*") if path.is_file()]:
        if path.relative_to(target).as_posix() not in there:
            path.unlink()
    missing = {file for file in there if not (target / file).is_file()}
    changed = [f for f in there if f in missing or copied.get(f) != versions[f]]
    # A file that an interrupted copy leaves in part is not recorded.
    copied = {f: versions[f] for f in there.keys() - set(changed)}
    write_json(record, copied)
    with progress.bar("copying", len(changed)) as bar:
        for start in range(0, len(changed), FILES_AT_ONCE):
            files = changed[start : start + FILES_AT_ONCE]
            with as_os_errors():
                storage.get([f"{root}/{f}" for f in files], _places(target, files))
            copied |= {file: versions[file] for file in files}
            write_json(record, copied)
            bar.update(len(files))


def _places(target: Path, files: Sequence[str]) -> list[str]:
    """Return where the files are copied to, in folders that exist."""
    places = [target / file for file in files]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
    return [str(place) for place in places]


def _is_ours(file: str) -> bool:
    """Return whether a file, by its path in the folder, is one that a data folder has."""
    parent, _, name = file.rpartition("/")
    # The names of objects are any text.
    is_name = name not in ("", ".", "..") and "\0" not in name
    return file == TABLE or parent in (IMAGES, MASKS) and is_name


def _version(info: dict) -> str:
    """Return what changes with the content of an object."""
    tag = info.get("etag") or info.get("ETag") or info.get("mtime")
    return f"{info['size']} {tag}"
