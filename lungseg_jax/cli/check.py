"""Reads every file of a data folder and says what is in it, or all that is wrong.

    lungseg check DIR
    lungseg check --cache_dir=/scratch/cache DIR

DIR holds 2d_images/ and 2d_masks/ with equal file names. Nothing is written to it. A
training makes the same check before it compiles anything; where nothing has changed
since, neither decodes the files again.

`python -m lungseg_jax.cli.check` is the same command.
"""

from lungseg_jax.runtime import signals

if __name__ == "__main__":
    signals.install_handlers()

import contextlib
from collections import Counter

from absl import flags

from lungseg_jax.cli import app
from lungseg_jax.data import preflight
from lungseg_jax.data.metadata import SliceMetadata
from lungseg_jax.data.preflight import CheckedFolder
from lungseg_jax.runtime import cache
from lungseg_jax.runtime.errors import UserError, bullet_list, pluralize

FLAGS = flags.FLAGS


def describe_folder(checked: CheckedFolder) -> str:
    """What was seen, as text."""
    seen = checked.seen
    sizes = Counter((one.width, one.height) for one in seen)
    widest = [
        f"{w} x {h} ({pluralize(n, 'slice')})" for (w, h), n in sizes.most_common(6)
    ]
    more = [f"and {len(sizes) - 6} more"] if len(sizes) > 6 else []
    low, high = min(one.low for one in seen), max(one.high for one in seen)
    pixels = sum(one.width * one.height for one in seen)
    share = sum(one.lung for one in seen) / pixels
    empty = [one.name for one in seen if not one.lung]
    duplicates = [" = ".join(group) for group in checked.duplicates]
    lines = [
        f"slices:       {len(seen)}",
        f"type:         {checked.dtype}, values {low:g} to {high:g}",
        f"width height: {', '.join(widest + more)}",
        f"lung:         {share:.1%} of all pixels",
        f"empty masks:  {len(empty)}",
        *([bullet_list(empty)] if empty else []),
        f"equal images: {len(duplicates)}",
        *([bullet_list(duplicates)] if duplicates else []),
        *_known(checked.table),
        f"fingerprint:  {checked.fingerprint}",
    ]
    if duplicates:
        lines.append("A training refuses equal images that fall into different splits.")
    return "\n".join(lines)


def _known(table: SliceMetadata) -> list[str]:
    """What slices.csv adds."""
    lines = []
    if table.patients:
        lines.append(f"patients:     {len(set(table.patients.values()))}")
    if table.spacings:
        rows, columns = zip(*table.spacings.values(), strict=True)
        low, high = min(rows + columns), max(rows + columns)
        lines.append(f"spacing:      {low:g} to {high:g} mm")
    return lines


def main(words: list[str]) -> None:
    (folder,) = app.positional(words, ["DIR"])
    root = None
    with contextlib.suppress(UserError):  # without a cache it is checked every time
        root = cache.cache_root(FLAGS.cache_dir)
    print(describe_folder(preflight.check_folder(folder, cache=root)))


if __name__ == "__main__":
    flags.DEFINE_string("cache_dir", "", "Keeps results; empty: ~/.cache/lungseg_jax.")
    app.run(main, __doc__, when_interrupted="nothing was written.")
