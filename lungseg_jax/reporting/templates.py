"""Templates of pages that refer to no other file."""

import base64
from pathlib import Path
from typing import Any

import jinja2

from lungseg_jax.runtime.errors import pluralize

NOT_AVAILABLE = "n/a"


def render(template: str, **values: Any) -> str:
    """Render a template of this folder, such as "page.html"; no value may be missing.

    Names of files, which need not be valid UTF-8, are escaped where they are not.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "count": pluralize}
    page = environment.get_template(template).render(**values)
    return page.encode("utf-8", errors="backslashreplace").decode()


def number(value: float | None) -> str:
    """Format a score with four digits; None becomes "n/a"."""
    return NOT_AVAILABLE if value is None else f"{value:.4f}"


def data_uri(media_type: str, content: bytes) -> str:
    """Return a file as a URI that contains it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def css_color(bgr: tuple[int, int, int]) -> str:
    """Return a color of `inference.overlay` as CSS."""
    return "rgb({2} {1} {0})".format(*bgr)
