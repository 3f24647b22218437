"""Libraries that are not dependencies of the package, but of one of its extras."""

import importlib.util

from lungseg_jax.runtime.errors import UserError


def require_library(
    name: str, *, extra: str, needed_by: str, otherwise: str = ""
) -> None:
    """Refuse what needs a library that is not installed.

    Args:
      name: the module.
      extra: of this package, which installs it.
      needed_by: what the user asked for.
      otherwise: what also helps, for the remedy.

    Raises:
      UserError: the library is not installed.
    """
    if importlib.util.find_spec(name) is None:
        install = f"pip install 'lungseg_jax[{extra}]'"
        raise UserError(
            f"{needed_by} needs {name}, which is not installed.",
            remedy=f"{install}, or {otherwise}" if otherwise else install,
        )
