"""Plumbing of the commands other than `train`: help, options, usage errors."""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from lungseg_jax.cli import outcome
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.device_names import HELP, parse_device
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import folder_path, user_path

SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 92,
    "show_default": True,
}

WITH_CONFIG = {**SETTINGS, "ignore_unknown_options": True}  # of `config_words`


class Command(click.Command):
    """A command whose help text is its module's docstring, verbatim.

    Args:
      when_interrupted: what is left and what to do, printed after Ctrl-C or SIGTERM.
      groups: headings of the help, with the names of the options below them.
    """

    def __init__(
        self,
        *args,
        when_interrupted: str = "nothing was written.",
        groups: Mapping[str, Sequence[str]] | None = None,
        **settings,
    ):
        super().__init__(*args, **settings)
        self._when_interrupted, self._groups = when_interrupted, groups or {}

    def parse_args(self, ctx, args):
        if ctx.ignore_unknown_options:  # -config.seed=1 would be -c -o -n ...
            args = [re.sub(r"^-(?=config\b)", "--", word) for word in args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx, formatter) -> None:
        self.format_usage(ctx, formatter)
        formatter.write(f"\n{self.help}\n")
        self.format_options(ctx, formatter)

    def format_options(self, ctx, formatter) -> None:
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        records = {option.name: option.get_help_record(ctx) for option in options}
        for heading, names in self._groups.items():
            with formatter.section(heading):
                formatter.write_dl([records.pop(name) for name in names])
        with formatter.section("Options"):
            formatter.write_dl(list(records.values()))

    def invoke(self, ctx):
        with outcome.reported(self._when_interrupted):
            return super().invoke(ctx)


class UserPath(click.ParamType):
    """A path as users type it: `~` is a home folder.

    Args:
      to_path: `user_path`; or `folder_path`, for what may be on object storage.
    """

    name = "path"

    def __init__(self, to_path: Callable[[str], Path]):
        self._to_path = to_path

    def convert(self, value, param, ctx) -> Path:
        if not isinstance(value, str):
            return value
        if not value:
            raise UserError(f"{_name(param, ctx)} is empty.", rule="a path.")
        return self._to_path(value)

    def shell_complete(self, ctx, param, incomplete) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


PATH, FOLDER = UserPath(user_path), UserPath(folder_path)


def command(doc: str | None, **settings):
    """Decorate a function as a command with the help `doc`; see `Command`."""
    settings = {"context_settings": SETTINGS, "no_args_is_help": True} | settings
    return click.command(cls=Command, help=(doc or "").strip(), **settings)


def run(root: click.Group) -> None:
    """Run the command that the command line names; exit if it fails."""
    with outcome.reported("nothing was written."):
        try:
            with root.make_context(root.name, sys.argv[1:]) as context:
                root.invoke(context)
        except click.exceptions.Exit:  # after --help or --version
            pass
        except click.exceptions.NoArgsIsHelpError as e:
            print(e.ctx.get_help())
        except click.UsageError as e:
            raise _plain(e) from e


def lung_option(meaning: str):
    """Define --lung, a list of numbers that is empty by default."""
    return click.option(
        "--lung",
        default="",
        metavar="N,N,...",
        callback=_parse_numbers,
        show_default=False,
        help=meaning,
    )


def _parse_numbers(ctx, param, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word]
    except ValueError as e:
        raise UserError(
            f"--{param.name}={text} is not a list of numbers.", rule="such as 1,2."
        ) from e


def run_option(meaning: str, *, default: str | None = None, multiple: bool = False):
    """Define --run, which is required if it has no default."""
    given = {"required": True} if default is None else {"default": default}
    return click.option(
        "--run",
        metavar="RUN",
        show_default=False,
        help=meaning,
        multiple=multiple,
        **given,
    )


config_option = click.option(
    "--config",
    default="incp_snapshot",
    metavar="NAME",
    help="Recipe: NAME, NAME:VARIANT, or a file.",
)
config_words = click.argument(
    "words", metavar="[--config.KEY=VALUE]...", nargs=-1, type=click.UNPROCESSED
)
members_option = click.option(
    "--members",
    default="all",
    metavar="WHICH",
    help="all, last, average, or steps such as 686,1029.",
)
flips_option = click.option(
    "--flips",
    is_flag=True,
    help="Average over mirror images, at four times the cost.",
)
device_option = click.option(  # passes on a `DeviceName` or None
    "--device",
    default="",
    metavar="NAME",
    show_default=False,
    callback=lambda ctx, param, value: parse_device(value),
    help=HELP,
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace outputs that exist."
)


def _silence(ctx, param, value: bool) -> None:
    if value:
        progress.silence()


def _log_compiles(ctx, param, value: bool) -> None:
    """Set a variable that JAX reads when it is imported, which is therefore later."""
    if value:
        os.environ["JAX_LOG_COMPILES"] = "1"


quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_silence,
    help="Print only results and errors.",
)
verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_log_compiles,
    help="Also print what is compiled, and for how long.",
)


def output(name: str, meaning: str):
    """Define what a command writes, as its last word or as -o, and pass it on as `out`."""

    def decorate(function):
        def choose(ctx, param, value: Path | None) -> Path:
            word = ctx.params.pop("last_word", None)
            if word and value:
                raise UserError(
                    f"{name} is named twice, as {word} and as {value}.",
                    remedy="leave one of them out.",
                )
            if not word and not value and not ctx.resilient_parsing:
                raise UserError(
                    f"{name} is missing.", rule=meaning, remedy="--help shows examples."
                )
            return word or value

        function = click.argument(
            "last_word", metavar=f"[{name}]", type=PATH, required=False, is_eager=True
        )(function)
        return click.option(
            "-o",
            "--output",
            "out",
            type=PATH,
            callback=choose,
            help=f"The same as {name}.",
        )(function)

    return decorate


def _name(param: click.Parameter, ctx: click.Context) -> str:
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return param.make_metavar(ctx).strip("[]")


def _plain(error: click.UsageError) -> UserError:
    """Return an error of click as one of ours."""
    if isinstance(error, click.NoSuchOption):
        near = [*(error.possibilities or ()), "--help lists all."]
        return UserError(f"unknown option {error.option_name}.", remedy=near[0])
    if isinstance(error, click.MissingParameter):
        return UserError(
            f"{_name(error.param, error.ctx)} is missing.",
            remedy="--help shows examples.",
        )
    if error.message.startswith("Got unexpected extra argument"):
        return UserError(
            _lower(error.message),
            remedy="put a path with spaces in quotes; --help shows examples.",
        )
    what, rule = error.message, ""
    if isinstance(error, click.BadParameter) and error.param:
        what = f"{_name(error.param, error.ctx)}: {what}"
        if isinstance(error.param.type, click.IntRange | click.FloatRange):
            what, rule = what.replace(" range.", "."), _range_rule(error.param.type)
    return UserError(_lower(what), rule=rule, remedy="--help lists options.")


def _range_rule(kind: click.IntRange | click.FloatRange) -> str:
    """Say what numbers are allowed; each range has a minimum."""
    noun = "an integer" if isinstance(kind, click.IntRange) else "a number"
    if kind.max is None:
        return f"{noun}, {kind.min} or more."
    return f"{noun} from {kind.min} to {kind.max}."


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
