"""Read every file of a data folder and describe it, or list everything wrong with it.

    lungseg check DIR
    lungseg check --cache_dir=/scratch/cache DIR

DIR holds 2d_images/ and 2d_masks/ with equal file names. Nothing is written to it. A
training makes the same check before it compiles anything; neither decodes the files again
while they stay unchanged.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lungseg_jax.cli import app
from lungseg_jax.data.data_folder import require_data_folder
from lungseg_jax.runtime.errors import bullet_list, pluralize
from lungseg_jax.runtime.outputs import require_outside

if TYPE_CHECKING:
    from lungseg_jax.data.metadata import SliceMetadata
    from lungseg_jax.data.preflight import CheckedFolder

LEAST_PATIENTS = 3  # one for each split


@app.command(__doc__)
@click.argument("folder", metavar="DIR", type=app.FOLDER)
@click.option(
    "--cache_dir",
    type=app.PATH,
    help="Keeps results; by default ~/.cache/lungseg_jax.",
)
@app.quiet_option
def check(folder: Path, cache_dir: Path | None) -> None:
    require_data_folder(folder)
    from lungseg_jax.data import preflight
    from lungseg_jax.data.remote_folder import local_data_folder
    from lungseg_jax.runtime import cache, progress

    if cache_dir:
        require_outside([cache_dir], [folder])
        root = cache.cache_root(str(cache_dir), option="--cache_dir")
    else:
        root = cache.root_if_possible()
    local = local_data_folder(folder, root)
    progress.answer(describe_folder(preflight.check_folder(local, cache=root)))


def describe_folder(checked: "CheckedFolder") -> str:
    """Describe the slices of a data folder as text."""
    from lungseg_jax.data.intensity import DOMAINS

    slices = checked.slices
    sizes = Counter((s.width, s.height) for s in slices)
    widest = [
        f"{w} x {h} ({pluralize(n, 'slice')})" for (w, h), n in sizes.most_common(6)
    ]
    more = [f"and {len(sizes) - 6} more"] if len(sizes) > 6 else []
    low, high = min(s.low for s in slices), max(s.high for s in slices)
    pixels = sum(s.width * s.height for s in slices)
    share = sum(s.lung_pixels for s in slices) / pixels
    empty = [s.name for s in slices if not s.lung_pixels]
    duplicates = [" = ".join(group) for group in checked.duplicates]
    lines = [
        f"slices:       {len(slices)}",
        f"type:         {checked.dtype}, values {low:g} to {high:g}",
        f"units:        {DOMAINS[checked.domain]}",
        f"width height: {', '.join(widest + more)}",
        f"lung:         {share:.1%} of all pixels",
        f"empty masks:  {len(empty)}",
        *([bullet_list(empty)] if empty else []),
        f"air labelled: {len(checked.air_labels)}",
        *([bullet_list(checked.air_labels)] if checked.air_labels else []),
        f"equal images: {len(duplicates)}",
        *([bullet_list(duplicates)] if duplicates else []),
        *_describe_metadata(checked.metadata),
        f"fingerprint:  {checked.fingerprint}",
    ]
    if checked.air_labels:
        lines.append(
            "A training leaves out slices whose label has the air around the body as lung."
        )
    if duplicates:
        lines.append("A training refuses equal images that fall into different splits.")
    patients = set(checked.metadata.patients.values())
    if patients and len(patients) < LEAST_PATIENTS:
        lines.append(
            f"A training needs at least {LEAST_PATIENTS} patients, to train, validate and "
            "test: all slices of a patient are in one split."
        )
    return "\n".join(lines)


def _describe_metadata(metadata: "SliceMetadata") -> list[str]:
    lines = []
    if metadata.patients:
        lines.append(f"patients:     {len(set(metadata.patients.values()))}")
    if metadata.spacings:
        rows, columns = zip(*metadata.spacings.values(), strict=True)
        low, high = min(rows + columns), max(rows + columns)
        spread = f"{low:g}" if f"{low:g}" == f"{high:g}" else f"{low:g} to {high:g}"
        lines.append(f"spacing:      {spread} mm")
    return lines
