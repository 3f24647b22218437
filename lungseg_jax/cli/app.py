"""The border of every command: flags in, exit status out.

0 done, 2 the user's mistake (one plain error), 75 and 130 stopped (`signals.STATUS`); a
traceback is ours.
"""

import difflib
import gc
import io
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from lungseg_jax.runtime import signals
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import user_path


def run(main: Callable[[list[str]], None], doc: str, *, when_interrupted: str) -> None:
    """Parses the command line, calls `main` with its positional words, and exits.

    Args:
      main: reads `flags.FLAGS`; raises UserError for bad input.
      doc: what `--help` prints above the flags.
      when_interrupted: what is left, and what to do, after Ctrl-C or SIGTERM.
    """
    argv = sys.argv[1:]
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who called
            setattr(sys, name, open(os.devnull, "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    gc.freeze()  # all that was imported stays; looking through it takes seconds
    try:
        if {"-h", "--help", "-help"} & set(argv):
            print(f"{doc.strip()}\n\nFlags:{_flag_help()}", flush=True)
            return
        with signals.raise_on_signal(when_interrupted):
            words = parse([_find_config(word) for word in _joined(argv)])
            main(words)
    except UserError as e:
        print(e, file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # of `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
    except OSError as e:  # a full disk, a folder that may not be written
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as e:
        name, status = "SIGINT", signals.INTERRUPTED
        if isinstance(e, signals.Stopped):
            name, status = e.name, e.status
        print(f"\nstopped by {name}; {when_interrupted}", file=sys.stderr)
        sys.exit(status)


def parse(argv: list[str]) -> list[str]:
    """Reads the flags; returns the words that are none.

    Raises:
      UserError: for every fault of a flag, among them unknown keys of a config.
    """
    for word in argv:
        if _is_flag_file(word):
            raise UserError(
                "--flagfile is not known here.", remedy="write the flags out."
            )
        _check_config_key(word)
    try:
        return flags.FLAGS(["lungseg_jax", *argv])[1:]
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
        # ml_collections: the config file is missing, or its get_config failed.
        cause = _user_error_behind(e)
        raise cause or UserError(f"--config: {e}") from e


def config_words() -> list[str]:
    """The command line for ml_collections, which opens flag files unasked."""
    return [word for word in sys.argv if not _is_flag_file(word)]


def command_line() -> str:
    """What was typed, to be typed again."""
    program, *words = sys.orig_argv[1:]
    if os.path.basename(program) == "lungseg":  # a script of this package
        return shlex.join(["lungseg", *words])
    return shlex.join(["python", program, *words])


def positional(words: list[str], names: list[str]) -> list[Path]:
    """The words as paths, one for each name.

    Raises:
      UserError: too few or too many.
    """
    if len(words) != len(names):
        wanted = " ".join(names) or "no words beside the flags"
        raise UserError(f"got {words or 'nothing'}, expected {wanted}.")
    for word, name in zip(words, names, strict=True):
        if not word:
            raise UserError(f"{name} is empty.", rule="a path.")
    return [user_path(word) for word in words]


def _joined(argv: list[str]) -> list[str]:
    """`--config FILE` as `--config=FILE`, which is the form that is checked."""
    argv = list(argv)
    for i, word in enumerate(argv[:-1]):
        if word in ("--config", "-config"):
            argv[i : i + 2] = [f"{word}={argv[i + 1]}"]
            break
    return argv


def _find_config(word: str) -> str:
    """Lets --config=configs/X.py be typed in any folder: looks in the checkout too."""
    flag, separator, value = word.partition("=")
    if flag.lstrip("-") != "config" or not separator:
        return word
    file, colon, variant = value.partition(":")
    checkout = Path(__file__).resolve().parent.parent
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
    """Of absl: a file of flags, which none of the checks here would see."""
    return word.startswith("-") and word.lstrip("-").partition("=")[0] == "flagfile"


def _check_config_key(word: str) -> None:
    """ml_collections meets an unknown key with a traceback."""
    key = word.partition("=")[0].lstrip("-").removeprefix("no")
    if not key.startswith("config."):
        return
    from lungseg_jax.training import config

    known = config.knobs()
    if key.removeprefix("config.") not in known:
        near = difflib.get_close_matches(key.removeprefix("config."), known, n=3)
        raise UserError(
            f"unknown config key {key}.",
            rule="lungseg_jax/training/config.py lists every key with its default.",
            remedy=" or ".join(f"--config.{k}=VALUE" for k in near),
        )


def _user_error_behind(error: BaseException | None) -> UserError | None:
    while error and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _flag_help() -> str:
    own = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    return "".join(f"\n  --{f.name}: {f.help} (default: {f.default!r})" for f in own)
