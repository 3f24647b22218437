"""The versions of packages."""

from importlib import metadata


def version_of(package: str) -> str:
    """Return the version of a package; "unknown" if it was imported without installing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
