"""The flags of `train`, parsed by absl, with the keys of a recipe by ml_collections."""

import difflib
import itertools
import os
import re
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.knob import Knob, from_json
from lungseg_jax.training.recipe_files import DEFAULT, find_recipe

KEYS = Path(__file__).with_name("config_keys.json")  # by docs/generate_reference.py
PARSERS = {  # of values on the command line, as absl and ml_collections parse them
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
}
LISTS = "--help lists flags and config keys, such as --config.data.dir=DIR."


def define_config(command_flags: flags.FlagValues, argv: Sequence[str]) -> None:
    """Define --config and --config.KEY, once; ml_collections reads the words here."""
    if "config" in command_flags:
        return
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Recipe: NAME, NAME:VARIANT, or a file; by default incp_snapshot.",
        # It would open flag files, and wants the recipe before its keys.
        sys_argv=sorted(
            (word for word in _join_config(argv) if not _is_flag_file(word)),
            key=lambda word: not re.match(r"--?config=", word),
        ),
        flag_values=command_flags,
    )


def read_config(words: Sequence[str]) -> ConfigDict:
    """Return the configuration that --config and --config.KEY=VALUE describe.

    Raises:
      UserError: for a faulty word, or one that is something else.
    """
    command_flags = check_words(words)
    parse_config(words, command_flags)
    return command_flags.config


def check_words(words: Sequence[str]) -> flags.FlagValues:
    """Check the words of `read_config` as far as that takes no time.

    Returns:
      The flags, of which `parse_config` parses those of the recipe.

    Raises:
      UserError: as `parse`.
    """
    command_flags = flags.FlagValues()
    define_config(command_flags, ["lungseg", *words])
    parse(words, command_flags)
    return command_flags


def parse(argv: Sequence[str], command_flags: flags.FlagValues) -> None:
    """Parse all flags but those of the recipe, which are checked; this takes no time.

    Raises:
      UserError: for a faulty flag, including a recipe that does not exist, unknown keys of
        a config and numbers out of their range, and for words that are not flags.
    """
    words, known = _with_recipe(argv), {knob.name: knob for knob in known_knobs()}
    for word in words:
        _check_config_word(word, known)
    _parse([w for w in words if not re.match(r"-*(no)?config", w)], command_flags)


def parse_config(argv: Sequence[str], command_flags: flags.FlagValues) -> None:
    """Parse all flags, with the recipe, which imports JAX.

    Args:
      argv: passed `parse`.
      command_flags: takes the values.

    Raises:
      UserError: for a recipe that fails or returns a faulty configuration, and for values
        that it does not take.
    """
    from lungseg_jax.training.config import check_config

    words = _with_recipe(argv)
    try:
        _parse(words, command_flags)
        # ml_collections raises what a recipe could not open when its config is used.
        getattr(command_flags.config, "keys", None)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        ImportError,
        LookupError,
        NameError,
        OSError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as e:
        error = e.__cause__ if isinstance(e.__cause__, OSError) else e
        raise _recipe_error(error, words) from e
    check_config(command_flags.config)  # its keys are relied on from here on


def known_knobs() -> list[Knob]:
    """Return the options of a configuration, read without JAX."""
    return from_json(KEYS.read_text(encoding="utf-8"))


def command_line() -> str:
    """Return the command as it was typed."""
    program, *words = sys.orig_argv[1:]
    if os.path.basename(program) == "lungseg":  # our console script
        return shlex.join(["lungseg", *words])
    return shlex.join(["python", program, *words])


def flag_help(command_flags: flags.FlagValues) -> str:
    """Describe the flags, a line each; all of them are off or empty by default."""
    names = sorted(command_flags)
    return "".join(f"\n  --{name}: {command_flags[name].help}" for name in names)


def _parse(words: Sequence[str], command_flags: flags.FlagValues) -> None:
    """Parse words with absl.

    Raises:
      UserError: for a faulty flag, and for words that are not flags.
    """
    if any(map(_is_flag_file, words)):
        raise UserError("--flagfile is not supported.", remedy="write the flags out.")
    for word in words:
        name, has_value, value = word.lstrip("-").partition("=")
        if has_value and name in command_flags and command_flags[name].boolean:
            _parse_value(word, value, bool, "true or false")
    try:
        rest = command_flags(["lungseg", *words])[1:]
    except flags.UnrecognizedFlagError as e:
        near = difflib.get_close_matches(e.flagname, list(command_flags), n=1)
        raise UserError(
            f"unknown flag --{e.flagname}.", remedy=f"--{near[0]}" if near else LISTS
        ) from e
    except flags.Error as e:
        # ml_collections puts what a recipe raises into the text of another error.
        if str(e).startswith("flag --config="):
            cause = e.__context__ and e.__context__.__context__
            raise _recipe_error(cause or e, words) from e
        raise _user_error_behind(e) or UserError(str(e), remedy=LISTS) from e
    if rest:
        raise UserError(
            f"unexpected argument {rest[0]}.",
            rule="every argument is a flag, which begins with --.",
            remedy=LISTS,
        )


def _with_recipe(argv: Sequence[str]) -> list[str]:
    """Return the words with the file of the recipe: the last one named, or the default."""
    words, recipe = [], DEFAULT
    for word in _join_config(argv):
        flag, separator, value = word.partition("=")
        if flag.lstrip("-") == "config" and separator:
            recipe = value
        else:
            words.append(word)
    return [f"--config={find_recipe(recipe)}", *words]


def _join_config(argv: Sequence[str]) -> list[str]:
    """Turn `--config FILE` and `--config.KEY VALUE` into one word, which is checked."""
    words: list[str] = []
    for word in argv:
        flag = words[-1] if words else ""
        is_config = re.fullmatch(r"--?config(\.[^=]*)?", flag)
        if is_config and not word.startswith("--"):
            words[-1] = f"{flag}={word}"
        else:
            words.append(word)
    return words


def _is_flag_file(word: str) -> bool:
    """Whether a word is absl's --flagfile, whose flags would not be checked here."""
    return word.startswith("-") and word.lstrip("-").partition("=")[0] == "flagfile"


def _check_config_word(word: str, known: Mapping[str, Knob]) -> None:
    """Reject an unknown key, and a value of another type or out of range.

    ml_collections raises a traceback for a key, absl an error of Python for a value.
    """
    flag, has_value, value = word.partition("=")
    key = flag.lstrip("-").removeprefix("no")
    if not key.startswith("config."):
        return
    knob = known.get(key.removeprefix("config."))
    if not knob:
        near = difflib.get_close_matches(key.removeprefix("config."), known, n=3)
        raise UserError(
            f"unknown config key {key}.",
            rule="`lungseg train --help` lists every key.",
            remedy=" or ".join(f"--config.{k}=VALUE" for k in near),
        )
    kind = type(knob.default)
    if not has_value and kind is not bool:
        raise UserError(
            f"--{key} has no value.",
            rule=f"{knob.rule}.",
            remedy=f"write --{key}=VALUE.",
        )
    if has_value:
        knob.check_range(_parse_value(word, value, kind, knob.rule))


def _parse_value(word: str, value: str, kind: type, rule: str) -> Any:
    """Parse a value, for which absl may raise an error of Python."""
    try:
        return PARSERS[kind].parse(value) if kind in PARSERS else value
    except (TypeError, ValueError) as e:
        raise UserError(f"{word} is not valid.", rule=f"{rule}.") from e


def _recipe_error(error: BaseException, words: Sequence[str]) -> UserError:
    """Return what a recipe raised, or why its get_config() cannot be called, as ours."""
    if cause := _user_error_behind(error):
        return cause
    recipe, *_ = (w.partition("=")[2] for w in words if re.match(r"--?config=", w))
    file, remedy = recipe.partition(":")[0], "correct the recipe."
    if place := _place_in_recipe(error, file):
        return UserError(
            f"--config: {type(error).__name__}: {error}",
            rule=f"raised by {place}.",
            remedy=remedy,
        )
    is_missing = isinstance(error, AttributeError)
    return UserError(
        f"{file} has no get_config()." if is_missing else f"{file}: {error}.",
        rule="a recipe has get_config(), or get_config(variant) if it has variants.",
        remedy=remedy,
    )


def _place_in_recipe(error: BaseException, file: str) -> str:
    """Return the file and line of a recipe, or of what it calls, that raised an error.

    Installed libraries are left out. The text is empty if no line of the recipe ran.
    """
    if isinstance(error, SyntaxError):
        return error.filename or file  # its text has the line
    frames = traceback.extract_tb(error.__traceback__)
    entered = list(itertools.dropwhile(lambda f: f.filename != file, frames))
    own = [f for f in entered if "site-packages" not in f.filename] or entered
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else ""


def _user_error_behind(error: BaseException | None) -> UserError | None:
    while error and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
