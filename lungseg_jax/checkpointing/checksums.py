"""SHA-256 checksums of files, arrays and JSON objects."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

KEY = "seal"  # of an object's own checksum


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_digest(array: Any) -> str:
    """Return the SHA-256 of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def json_digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON object, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def with_checksum(content: Mapping[str, Any]) -> dict:
    """Return a JSON object with the digest of everything else under KEY."""
    rest = {key: value for key, value in content.items() if key != KEY}
    return rest | {KEY: json_digest(rest)}


def has_valid_checksum(content: Any) -> bool:
    """Whether an object is exactly what `with_checksum` returned."""
    return isinstance(content, dict) and content == with_checksum(content)
