"""A row of the table of options; without JAX, so that commands check their words at once.

The table itself imports JAX: the command line reads it as JSON.
"""

import dataclasses
import json
from collections.abc import Collection, Iterable
from typing import Any

from lungseg_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Knob:
    """An option of the configuration, set by `--config.NAME=VALUE`.

    Attributes:
      name: dotted, as in "train.batch_size".
      default: its value where a recipe does not set it; its type is required.
      meaning: shown by `--help` and in docs/reference/configuration.md.
      range: the smallest and the largest value allowed.
      choices: the names allowed.
      before: the value that reproduces runs written before the knob existed. Required of
        every knob added after version 0.1; None for the original ones.
      is_cosmetic: affects where files are or what is printed, and no number of a run by
        more than rounding.
    """

    name: str
    default: Any
    meaning: str
    range: tuple[float, float] | None = None
    choices: Collection[str] = ()
    before: Any = None
    is_cosmetic: bool = False

    @property
    def rule(self) -> str:
        """Say what values are allowed, for messages."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        rule = _KINDS[type(self.default)]
        if self.range:
            rule += f" from {self.range[0]} to {self.range[1]}"
        return rule

    @property
    def help(self) -> str:
        """Describe the option in a line, for `--help`."""
        choices = f" ({', '.join(self.choices)})" if self.choices else ""
        return f"  --config.{self.name}={shown(self.default)}: {self.meaning}{choices}"

    def check_range(self, value: float) -> None:
        """Check a number, if there is a range.

        Raises:
          UserError: it is out of the range.
        """
        if self.range and not self.range[0] <= value <= self.range[1]:
            raise out_of_range(self.name, value, self.rule)


# What values are called, by the type of the default.
_KINDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    tuple: "numbers with a comma between them",
}


def to_json(knobs: Iterable[Knob]) -> str:
    """Return what the command line needs of knobs, a line each."""
    keys = "name", "default", "meaning", "range", "choices"
    rows = [
        {key: getattr(knob, key) for key in keys} | {"choices": [*knob.choices]}
        for knob in knobs
    ]
    return "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"


def from_json(text: str) -> list[Knob]:
    """Return the knobs of `to_json`."""
    return [
        Knob(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})
        for row in json.loads(text)
    ]


def out_of_range(key: str, value: Any, rule: str) -> UserError:
    """Return the error for a value of an option that breaks a rule."""
    return UserError(f"config.{key}={value} is out of range.", rule=f"{rule}.")


def shown(value: Any) -> str:
    """Return a default as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(shown(item) for item in value)
    return str(value)
