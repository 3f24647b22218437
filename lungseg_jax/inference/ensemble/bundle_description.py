"""Reading bundle.json, which others may have written: what a bundle can say."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lungseg_jax.data.intensity import DOMAINS
from lungseg_jax.data.preprocessing import CHANNELS
from lungseg_jax.inference.ensemble.views import VIEWS
from lungseg_jax.inference.outputs import POSTPROCESSING
from lungseg_jax.runtime.errors import UserError

VERSION = 2  # version 1, written by lungseg_jax 0.1, can be read
MAX_IMAGE_SIZE = (
    16_384  # side of a network's input: four times the largest of a training
)


def check_description(content: Any, file: Path) -> None:
    """Check the content of bundle.json; its weights are checked against "model".

    Raises:
      UserError: it is of a later version, or a field is missing or has a value that no
        bundle has.
    """
    version = content.get("version") if isinstance(content, dict) else None
    if type(version) is int and version > VERSION:
        raise UserError(
            f"{file.parent} is a bundle of version {version}.",
            rule=f"this version of lungseg_jax reads versions 1 to {VERSION}.",
            remedy="install a newer lungseg_jax, or run the program in the bundle.",
        )
    for name, is_valid in _FIELDS.items():
        try:
            is_fine = is_valid(content[name])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            is_fine = False
        if not is_fine:
            raise invalid_field(name, file)


def invalid_field(name: str, file: Path) -> UserError:
    """Return the error for a field of bundle.json that cannot be used."""
    return UserError(
        f"{file}: {name} is missing, or has a value that no bundle has.",
        rule="what `lungseg export` writes.",
        remedy="export the bundle again, or ask who made it.",
    )


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_preprocessing(value: Mapping[str, Any]) -> bool:
    low, high = value["window_hu"]
    is_window = _is_number(low) and _is_number(high) and low < high
    is_side = _is_count(value["image_size"], MAX_IMAGE_SIZE)
    return is_window and is_side and value["preprocessing"] in CHANNELS


def _are_names(value: Any) -> bool:
    are_texts = isinstance(value, list) and all(isinstance(v, str) for v in value)
    return are_texts and 0 < len(value) == len(set(value))


def _is_tuning(value: Mapping[str, Any]) -> bool:
    choices = value.get("choices", {})
    if not choices:
        return True
    is_known = value["postprocessing"]["chosen"] in POSTPROCESSING
    return is_known and "all" in choices and all(map(_is_choice, choices.values()))


def _is_choice(value: Mapping[str, Any]) -> bool:
    limit, temperature = value["review_below"], value["temperature"]
    is_limit = limit is None or _is_number(limit)
    is_temperature = _is_number(temperature) and temperature > 0
    return is_limit and is_temperature and _are_names(value["members"])


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "version": lambda value: type(value) is int and value >= 1,
    "members": _are_names,
    "model": lambda value: isinstance(value, dict),
    "preprocessing": _is_preprocessing,
    "threshold": lambda value: _is_number(value) and 0 <= value <= 1,
    "batch_size": lambda value: _is_count(value, 100_000),
    "domain": lambda value: value in DOMAINS,
    "views": lambda value: all(view in VIEWS for view in value.values()),
    "tuning": _is_tuning,
}
