"""Recipes: their files, in configs/ of a checkout or in the installed package."""

import ast
import difflib
import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

import lungseg_jax
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import user_path

DEFAULT = "incp_snapshot"


def recipes() -> dict[str, Path]:
    """Return the file of each recipe, by name."""
    package = Path(lungseg_jax.__file__).resolve().parent
    folders = package.parent / "configs", package / "configs"
    folder = next((f for f in folders if (f / f"{DEFAULT}.py").is_file()), folders[0])
    return {file.stem: file for file in sorted(folder.glob("[!_]*.py"))}


def find_recipe(text: str) -> str:
    """Return FILE.py or FILE.py:VARIANT for what a user types.

    Args:
      text: the name of a recipe or the path of a file, configs/NAME.py in any folder, and
        perhaps `:VARIANT`.

    Raises:
      UserError: the recipe does not exist.
    """
    name, colon, variant = text.partition(":")
    known = recipes()
    file = user_path(name)
    if not file.is_file() and name.removeprefix("configs/") in (
        word for stem in known for word in (stem, f"{stem}.py")
    ):
        file = known[file.stem]
    if not file.is_file() or file.suffix != ".py":
        near = difflib.get_close_matches(file.stem, known, n=1)
        listing = "`lungseg train --list` describes them."
        raise UserError(
            f"no config file {text or '(empty)'} was found.",
            rule=f"a file, or one of {', '.join(known)}.",
            remedy=f"--config={near[0]}." if near else listing,
        )
    return f"{file}{colon}{variant}"


def load_recipe(name: str = DEFAULT) -> ConfigDict:
    """Return the configuration of a recipe, to change and to pass to `run_experiment`.

        c = lungseg_jax.load_recipe("incp_snapshot:long")
        c.data.dir = "DIR"
        lungseg_jax.run_experiment(c)

    Args:
      name: NAME, NAME:VARIANT or the path of a file, as for `lungseg train --config`, whose
        `--list` describes them. A file is executed.

    Raises:
      UserError: the recipe does not exist, or has no such variant.
    """
    file, colon, variant = find_recipe(name).partition(":")
    spec = importlib.util.spec_from_file_location("recipe", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*([variant] if colon else []))


def describe_recipes() -> str:
    """Return what each recipe says about itself and its variants."""
    parts = []
    for name, file in recipes().items():
        doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        parts.append(f"{name}\n{'-' * len(name)}\n{doc}")
    return "\n\n".join(parts)
