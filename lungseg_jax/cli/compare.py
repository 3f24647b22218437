"""Scores masks, whoever made them, against true ones.

    lungseg compare truth.png mask.png
    lungseg compare --csv=scores.csv 2d_masks/ masks/
    lungseg compare --tolerance=3 truth.nii.gz mask.nii.gz

TRUTH and MASK are two image files, two folders of files with equal names, or two volumes of
one size and geometry. A volume counts as its axial slices, with distances in mm; files
of one slice have no spacing, and distances in pixels.
"""

from lungseg_jax.runtime import signals

if __name__ == "__main__":
    signals.install_handlers()

import math

from absl import flags

from lungseg_jax.cli import app
from lungseg_jax.evaluation.comparison import (
    compare_masks,
    format_scores,
    pair_masks,
    write_slice_scores,
)
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import check_outputs, user_path
from lungseg_jax.training.run_folder import write_json

FLAGS = flags.FLAGS


def main(words: list[str]) -> None:
    truth, mask = app.positional(words, ["TRUTH", "MASK"])
    outputs = {
        flag: user_path(FLAGS[flag].value)
        for flag in ("csv", "json")
        if FLAGS[flag].value
    }
    check_outputs(
        list(outputs.values()), inputs=[truth, mask], overwrite=FLAGS.overwrite
    )
    if not math.isfinite(FLAGS.tolerance):
        raise UserError(
            f"--tolerance={FLAGS.tolerance}.", rule="a distance, 0 or more."
        )
    if FLAGS.quiet:
        progress.silence()
    total, pairs = pair_masks(truth, mask)
    with progress.bar("comparing", total) as bar:

        def counted_pairs():
            for pair in pairs:
                yield pair
                bar.update()

        comparison = compare_masks(counted_pairs(), tolerance=FLAGS.tolerance)
    if "csv" in outputs:
        write_slice_scores(outputs["csv"], comparison["slices"])
    if "json" in outputs:
        write_json(outputs["json"], comparison)
    progress.answer(format_scores(comparison))


if __name__ == "__main__":
    flags.DEFINE_float("tolerance", 2.0, "Of NSD, in mm or pixels.", lower_bound=0.0)
    flags.DEFINE_string("csv", "", "File for the scores of each slice.")
    flags.DEFINE_string("json", "", "File for all scores.")
    flags.DEFINE_bool("overwrite", False, "Replace these files if they exist.")
    flags.DEFINE_bool("quiet", False, "Show no progress.")
    app.run(main, __doc__, when_interrupted="nothing was written.")
