"""Shared command-line plumbing: flags, error reporting, exit codes.

Exit status 0: done; 2: a user error, printed without a traceback; 75 and 130: stopped by
a signal (`signals.STATUS`). A traceback is a bug.
"""

import difflib
import gc
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from lungseg_jax.runtime import signals
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import user_path


def run(
    command: Callable[[list[str]], None],
    command_flags: flags.FlagValues,
    doc: str,
    *,
    when_interrupted: str = "nothing was written.",
    config_keys: Sequence[str] = (),
    more_help: str = "",
) -> None:
    """Parse the command line, call `command` with its positional words, and exit.

    Args:
      command: reads `command_flags`; raises UserError for bad input.
      command_flags: the flags of the command.
      doc: printed by `--help` above the flags.
      when_interrupted: what is left and what to do, printed after Ctrl-C or SIGTERM.
      config_keys: the keys known to `--config.KEY=VALUE`.
      more_help: printed by `--help` below the flags.
    """
    argv = sys.argv[1:]
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path need not be valid UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    gc.freeze()  # imported modules stay; collecting them takes seconds
    try:
        if {"-h", "--help", "-help"} & set(argv):
            print(f"{doc.strip()}\n\nFlags:{_flag_help(command_flags)}{more_help}")
            sys.stdout.flush()
            return
        with signals.raise_on_signal(when_interrupted):
            words = [_find_config(word) for word in _join_config(argv)]
            command(parse(words, command_flags, config_keys))
    except UserError as e:
        print(e, file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # as of `| head`: the reader has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
    except OSError as e:  # a full disk, a folder that is not writable
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as e:
        name, status = "SIGINT", signals.INTERRUPTED
        if isinstance(e, signals.Stopped):
            name, status = e.name, e.status
        print(f"\nstopped by {name}; {when_interrupted}", file=sys.stderr)
        sys.exit(status)


def parse(
    argv: Sequence[str],
    command_flags: flags.FlagValues,
    config_keys: Sequence[str] = (),
) -> list[str]:
    """Parse flags and return the positional words.

    Raises:
      UserError: for every faulty flag, including unknown keys of a config.
    """
    for word in argv:
        if _is_flag_file(word):
            raise UserError(
                "--flagfile is not supported.", remedy="write the flags out."
            )
        _check_config_key(word, config_keys)
    try:
        return command_flags(["lungseg", *argv])[1:]
    except flags.Error as e:
        cause = _user_error_behind(e)
        what = re.sub(
            r"^flag (--\w+)=None: .* other than None.*", r"\1 is missing.", str(e)
        )
        raise cause or UserError(what.strip(), remedy="--help lists flags.") from e
    except (
        AttributeError,
        ImportError,
        KeyError,
        OSError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as e:
        # From ml_collections: the config file is missing, or its get_config failed.
        cause = _user_error_behind(e)
        raise cause or UserError(f"--config: {e}") from e


def define_run(
    command_flags: flags.FlagValues, meaning: str, *, default: str | None = None
) -> None:
    """Define --run, which is required if it has no default."""
    flags.DEFINE_string(
        "run", default, meaning, required=default is None, flag_values=command_flags
    )


def define_members(command_flags: flags.FlagValues) -> None:
    """Define --members."""
    flags.DEFINE_string(
        "members",
        "all",
        "all, last, average, or steps such as 400,600.",
        flag_values=command_flags,
    )


def define_flips(command_flags: flags.FlagValues) -> None:
    """Define --flips."""
    flags.DEFINE_bool(
        "flips",
        False,
        "Average over mirror images, at four times the cost.",
        flag_values=command_flags,
    )


def define_overwrite(command_flags: flags.FlagValues) -> None:
    """Define --overwrite."""
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Replace outputs that exist.",
        flag_values=command_flags,
    )


def define_quiet(command_flags: flags.FlagValues) -> None:
    """Define --quiet."""
    flags.DEFINE_bool("quiet", False, "Print only errors.", flag_values=command_flags)


def config_words() -> list[str]:
    """Return the command line for ml_collections, which would open flag files."""
    return [word for word in sys.argv if not _is_flag_file(word)]


def command_line() -> str:
    """Return the command as it was typed."""
    program, *words = sys.orig_argv[1:]
    if os.path.basename(program) == "lungseg":  # our console script
        return shlex.join(["lungseg", *words])
    return shlex.join(["python", program, *words])


def positional(words: Sequence[str], names: Sequence[str]) -> list[Path]:
    """Return the words as paths, one for each name.

    Raises:
      UserError: too few or too many.
    """
    if len(words) != len(names):
        expected = " ".join(names) or "only flags"
        raise UserError(f"got {words or 'nothing'}, expected {expected}.")
    for word, name in zip(words, names, strict=True):
        if not word:
            raise UserError(f"{name} is empty.", rule="a path.")
    return [user_path(word) for word in words]


def _join_config(argv: Sequence[str]) -> list[str]:
    """Turn `--config FILE` into `--config=FILE`, the form that is checked."""
    argv = list(argv)
    for i, word in enumerate(argv[:-1]):
        if word in ("--config", "-config"):
            argv[i : i + 2] = [f"{word}={argv[i + 1]}"]
            break
    return argv


def _find_config(word: str) -> str:
    """Let --config=configs/X.py be typed in any folder: look in the checkout, too."""
    flag, separator, value = word.partition("=")
    if flag.lstrip("-") != "config" or not separator:
        return word
    file, colon, variant = value.partition(":")
    checkout = Path(__file__).resolve().parents[2]
    file = str(user_path(file))
    if not Path(file).exists() and (checkout / file).exists():
        file = str(checkout / file)
    if not Path(file).is_file() or not file.endswith(".py"):
        recipes = sorted(p.name for p in (checkout / "configs").glob("*.py"))
        raise UserError(
            f"there is no config file {value or '(empty)'}.",
            rule=f"configs/ has {', '.join(recipes)}." if recipes else "",
        )
    return f"{flag}={file}{colon}{variant}"


def _is_flag_file(word: str) -> bool:
    """Whether a word is absl's --flagfile, whose flags would not be checked here."""
    return word.startswith("-") and word.lstrip("-").partition("=")[0] == "flagfile"


def _check_config_key(word: str, known: Sequence[str]) -> None:
    """Reject an unknown key, for which ml_collections raises a traceback."""
    key = word.partition("=")[0].lstrip("-").removeprefix("no")
    if not key.startswith("config.") or key.removeprefix("config.") in known:
        return
    near = difflib.get_close_matches(key.removeprefix("config."), known, n=3)
    raise UserError(
        f"unknown config key {key}.",
        rule="`lungseg train --help` lists every key with its default.",
        remedy=" or ".join(f"--config.{k}=VALUE" for k in near),
    )


def _user_error_behind(error: BaseException | None) -> UserError | None:
    while error and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _flag_help(command_flags: flags.FlagValues) -> str:
    return "".join(
        f"\n  --{name}: {command_flags[name].help} "
        f"(default: {command_flags[name].default!r})"
        for name in sorted(command_flags)
    )
