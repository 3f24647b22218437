"""The page of a folder of volumes: a row for each, which links to its page."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lungseg_jax.reporting.templates import render
from lungseg_jax.runtime.files import write_text

GENERATOR = b'<meta name="generator" content="lungseg_jax">'  # in base.html
SIZES = {"volume_ml": "Both, ml", "right_ml": "Right, ml", "left_ml": "Left, ml"}


def write_index_page(
    path: Path,
    pages: Mapping[str, Path],
    volumes: Sequence[Mapping[str, Any]],
    skipped: Mapping[str, str],
) -> None:
    """Write the page, in HTML; links are relative to it.

    Args:
      path: replaced if it exists.
      pages: of all volumes, by name.
      volumes: rows of `PredictionTable.volumes`, as many as are known.
      skipped: why a volume has no page after all, by its name.

    Raises:
      UserError: the file cannot be written.
    """
    by_name = {row["input"]: row for row in volumes}
    shared = os.path.commonpath([Path(name).parent for name in pages])
    rows = [
        {"name": os.path.relpath(name, shared), "reason": skipped.get(name)}
        | _row(page, path.parent, by_name.get(name))
        for name, page in pages.items()
    ]
    write_text(
        path,
        render(
            "index_page.html",
            title=f"Lungs of {Path(os.path.abspath(shared)).name}",
            sizes=list(SIZES.values()),
            rows=rows,
            skipped=sum(row["reason"] is not None for row in rows),
        ),
    )


def is_own_page(path: Path) -> bool:
    """Return whether a file is a page that this package has written."""
    try:
        return GENERATOR in path.read_bytes()
    except OSError:
        return False


def _row(page: Path, folder: Path, row: Mapping[str, Any] | None) -> dict:
    return {
        "link": quote(os.fsencode(os.path.relpath(page, folder))),
        "sizes": [_rounded(row[column]) if row else "" for column in SIZES],
        "density": _rounded(row["mean_hu"]) if row else "",
        "slices": row["slices"] if row else "",
        "to_review": row["to_review"] if row else 0,
    }


def _rounded(text: str) -> str:
    return f"{float(text):.0f}" if text else ""
