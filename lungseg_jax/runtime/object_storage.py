"""Folders on object storage, gs://BUCKET/NAME and s3://BUCKET/NAME, as paths.

epath, which Orbax uses too, gives them the methods of a `pathlib.Path`; gcsfs of the extra
[gcs] and s3fs of the extra [s3] transfer the bytes. An object appears when it is complete.
It has neither folders nor locks, and an object is replaced rather than appended to.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.extras import require_library

LIBRARIES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}  # and their extras


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return whether a path, or what a user types as one, is on object storage."""
    return os.fspath(path).startswith(tuple(f"{scheme}://" for scheme in LIBRARIES))


def remote_path(address: str | os.PathLike[str]) -> Path:
    """Return the path of an address, once its storage has answered.

    Returns:
      An `epath.Path`: of the methods of a `pathlib.Path`, it lacks those that object
      storage cannot have.

    Raises:
      UserError: it names no folder, the library is not installed, or the storage does not
        answer.
    """
    address = os.fspath(address)
    scheme, _, rest = address.partition("://")
    bucket, _, name = rest.rstrip("/").partition("/")
    if not bucket or not name:
        raise UserError(
            f"{address} does not name a folder.", rule=f"{scheme}://BUCKET/NAME."
        )
    library, extra = LIBRARIES[scheme]
    require_library(library, extra=extra, needed_by=address)
    import fsspec
    from etils import epath

    # gcsfs would ask for the kind of the bucket at every call, a further permission.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # Other processes write, too.
    for protocol in ("gcs", "s3"):
        fsspec.config.conf.setdefault(protocol, {})["use_listings_cache"] = False
    path = epath.Path(f"{scheme}://{bucket}/{name}")
    try:
        path.exists()
    except Exception as e:  # of several libraries
        raise UserError(
            f"{address} cannot be reached: {_text(e)}",
            remedy="check its name, the connection, and the credentials: those of "
            "`gcloud auth application-default login`, or of `aws configure`.",
        ) from e
    return path


def upload(file: Path, to: Path) -> None:
    """Copy a file of this machine to an object, which is replaced if it exists.

    Raises:
      OSError: it cannot be written.
    """
    content = file.read_bytes()
    with as_os_errors():
        to.write_bytes(content)


def download(path: Path, to: Path) -> None:
    """Copy an object, or all objects below a name, to this machine.

    Raises:
      FileNotFoundError: there is none.
      OSError: it cannot be read, or its name leads out of `to`.
    """
    import fsspec

    with as_os_errors():
        storage, name = fsspec.core.url_to_fs(os.fspath(path))
        objects = storage.find(name)
        places = [to / found.removeprefix(name).strip("/") for found in objects]
        if not objects:
            raise FileNotFoundError(errno.ENOENT, "it does not exist", str(path))
        if any(".." in place.relative_to(to).parts for place in places):
            raise OSError(errno.EINVAL, f"{path} has objects with .. in their names")
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
        storage.get(objects, [str(place) for place in places])


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yield a file itself, or for the block a copy of it if it is on object storage.

    Raises:
      FileNotFoundError: it does not exist.
      OSError: it cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        download(path, copy)
        yield copy


@contextlib.contextmanager
def as_os_errors() -> Iterator[None]:
    """Turn what the libraries raise in the block, beside OSError, into one.

    Raises:
      OSError: object storage does not answer, or refuses to.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as e:  # of several libraries
        raise OSError(errno.EIO, _text(e)) from e


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
