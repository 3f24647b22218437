"""Write the texts that follow from the code.

    python docs/generate_reference.py

In docs/reference, these are commands.md, from the options of every command, and the table
of configuration.md, from the table of knobs. `train` has the same knobs from a file, for
its help and to check its words, so that it need not import what defines them, and JAX.
"""

import importlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
from absl import flags

from lungseg_jax.__main__ import COMMANDS
from lungseg_jax.cli import train_flags
from lungseg_jax.training.knob import to_json
from lungseg_jax.training.knobs import all_knobs, knob_table

REFERENCE = Path(__file__).resolve().parent / "reference"
START, END = "<!-- knob_table: start -->\n", "<!-- knob_table: end -->\n"

HEAD = """\
# Commands

<!-- Written by docs/generate_reference.py from the options themselves. -->

`lungseg COMMAND` and `python -m lungseg_jax COMMAND` are the same, and `-h` or `--help`
describes each. All of them end with one of four [exit statuses](exit_status.md).

```sh
lungseg --version
eval "$(_LUNGSEG_COMPLETE=bash_source lungseg)"     # completion; also zsh and fish
```

| command | purpose |
|---|---|
"""

Row = tuple[str, str, str]  # flags as Markdown, default, meaning


def generated_pages() -> dict[Path, str]:
    """Return the text of each file that is generated."""
    configuration = REFERENCE / "configuration.md"
    before, rest = configuration.read_text(encoding="utf-8").split(START)
    _, after = rest.split(END)
    return {
        REFERENCE / "commands.md": commands_page(),
        train_flags.KEYS: to_json(all_knobs()),
        configuration: f"{before}{START}\n{knob_table()}\n\n{END}{after}",
    }


def commands_page() -> str:
    """Return the page of all commands, in the order of their list."""
    rows = [f"| [`{name}`](#lungseg-{name}) | {COMMANDS[name]} |" for name in COMMANDS]
    return HEAD + "\n".join([*rows, "", *map(command_section, COMMANDS)])


def command_section(name: str) -> str:
    """Return the section of a command: its help as prose, and a table of its options."""
    module = importlib.import_module(f"lungseg_jax.cli.{name}")
    parts = [f"## lungseg {name}", prose(module.__doc__.strip())]
    if name == "train":
        rows, positional = [*flag_rows(module.FLAGS)], ""
        parts += ["Every `--config.KEY` is in [configuration](configuration.md)."]
    else:
        command = getattr(module, name)
        rows, positional = [*option_rows(command)], _positional(command)
    if positional:
        parts.insert(1, f"```\nlungseg {name} [OPTIONS] {positional}\n```")
    if rows:
        rows = [("option", "default", "meaning"), ("---", "---", "---"), *rows]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts) + "\n"


def prose(docstring: str) -> str:
    """Return a docstring as Markdown: indented lines are commands, flags are code."""
    paragraphs = []
    for paragraph in docstring.split("\n\n"):
        if paragraph.startswith("    "):
            paragraphs.append(f"```sh\n{textwrap.dedent(paragraph)}\n```")
        else:
            paragraphs.append(_mark_code(paragraph))
    return "\n\n".join(paragraphs)


def option_rows(command: click.Command) -> Iterator[Row]:
    """Yield a row for each option of a command of click."""
    context = click.Context(command)
    for option in command.params:
        if isinstance(option, click.Option):
            yield _option_row(option, context)


def flag_rows(command_flags: flags.FlagValues) -> Iterator[Row]:
    """Yield a row for each flag of `train`, which absl defines."""
    yield (
        "`--config=NAME`, `--config=NAME:VARIANT`, `--config=FILE.py`",
        "`incp_snapshot`",
        "Recipe, and perhaps its variant.",
    )
    for name in sorted(command_flags):
        if name.startswith("config"):  # defined when a command line is parsed
            continue
        flag = command_flags[name]
        text = f"`--{name}`" if flag.boolean else f"`--{name}=VALUE`"
        yield text, f"`{flag.default}`" if flag.default else "", _mark_code(flag.help)


def _option_row(option: click.Option, context: click.Context) -> Row:
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    meaning = _mark_code(option.help or "")
    if isinstance(option.type, click.IntRange | click.FloatRange):
        value = " N"
        most = "" if option.type.max is None else f" to {option.type.max}"
        meaning += f" {option.type.min}{most or ' or more'}."
    elif isinstance(option.type, click.Choice):
        value = " NAME"
        meaning += f" One of {', '.join(option.type.choices)}."
    shown = [f"`{flag}{value}`" for flag in (*option.opts, *option.secondary_opts)]
    return ", ".join(shown), _default(option, context), meaning


def _default(option: click.Option, context: click.Context) -> str:
    if option.required:
        return "required"
    default = option.get_default(context, call=False)
    if option.secondary_opts:  # a flag with a counterpart, such as --no_x
        return f"`{(option.opts if default else option.secondary_opts)[0]}`"
    is_value = isinstance(default, str | int | float) and not option.is_flag
    return f"`{default}`" if is_value and option.show_default is not False else ""


def _positional(command: click.Command) -> str:
    context = click.Context(command)
    words = [
        param.make_metavar(context)
        for param in command.params
        if isinstance(param, click.Argument)
    ]
    return " ".join(words)


def _mark_code(text: str) -> str:
    """Mark the flags in prose as code, and escape what would be HTML."""
    marked = re.sub(r"(?<![`\w-])--\w[\w.]*(?:=[\w./]*)?(?<!\.)", r"`\g<0>`", text)
    return marked.replace("<", "&lt;").replace("|", "\\|")


if __name__ == "__main__":
    for page, content in generated_pages().items():
        page.write_text(content, encoding="utf-8")
