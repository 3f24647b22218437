"""`lungseg` itself: the list of its commands, its version, its completion by shells."""

import difflib
import importlib
import os
import sys
from collections.abc import Mapping

import click
from click.shell_completion import shell_complete

import lungseg_jax
from lungseg_jax.cli import app
from lungseg_jax.runtime.errors import UserError

COMPLETION = "_LUNGSEG_COMPLETE"  # set by the shell, to bash_complete and the like


class Root(click.Group):
    """The commands, each imported only when it is called.

    Args:
      summaries: of the commands, by name.
      doc: for the help; None under `python -OO`, which drops docstrings.
    """

    def __init__(self, summaries: Mapping[str, str], doc: str | None):
        version = click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            help="Print the version.",
        )
        super().__init__(
            "lungseg",
            params=[version],
            help=(doc or "").strip(),
            no_args_is_help=True,
            options_metavar="",
            subcommand_metavar="COMMAND [OPTIONS]...",
            context_settings=app.SETTINGS,
        )
        self._summaries = summaries

    def list_commands(self, ctx) -> list[str]:
        return list(self._summaries)

    def get_command(self, ctx, name: str) -> click.Command | None:
        if name == "train":  # its options are those of absl
            return click.Command(name, params=[])
        if name not in self._summaries:
            return None
        return getattr(importlib.import_module(f"lungseg_jax.cli.{name}"), name)

    def resolve_command(self, ctx, args):
        name = args[0]
        if name not in self._summaries:
            near = difflib.get_close_matches(name, self._summaries, n=1)
            raise UserError(
                f"unknown command {name}." if name else "no command was named.",
                rule=f"one of {', '.join(self._summaries)}.",
                remedy=f"lungseg {near[0]}" if near else "",
            )
        return super().resolve_command(ctx, args)

    def format_help(self, ctx, formatter) -> None:
        rows = [f"  {name:9} {text}" for name, text in self._summaries.items()]
        self.format_usage(ctx, formatter)
        formatter.write(f"\n{self.help}\n\nCommands:\n")
        formatter.write("\n".join(rows) + "\n")
        self.format_options(ctx, formatter)

    def format_options(self, ctx, formatter) -> None:
        click.Command.format_options(self, ctx, formatter)


def main(summaries: Mapping[str, str], doc: str | None) -> None:
    """Run the command line."""
    root = Root(summaries, doc)
    if COMPLETION in os.environ:
        sys.exit(
            shell_complete(root, {}, "lungseg", COMPLETION, os.environ[COMPLETION])
        )
    app.run(root)


def _print_version(ctx, param, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        print(f"lungseg_jax {lungseg_jax.__version__}")
        ctx.exit()
