"""Score masks from any source against true ones.

    lungseg compare truth.png mask.png
    lungseg compare --csv=scores.csv 2d_masks/ masks/
    lungseg compare --tolerance=3 truth.nii.gz mask.nii.gz

TRUTH and MASK are two image files, two folders of files with equal names, or two volumes
of the same size and geometry. A volume is scored by its axial slices, with distances in
mm; single-slice files have no spacing, so distances are in pixels.
"""

import math

from absl import flags

from lungseg_jax.cli import app
from lungseg_jax.evaluation.comparison import compare_masks, format_scores, pair_masks
from lungseg_jax.evaluation.slice_scores import write_slice_scores
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import check_outputs, user_path, write_json

FLAGS = flags.FlagValues()
flags.DEFINE_float(
    "tolerance", 2.0, "Of NSD, in mm or pixels.", lower_bound=0.0, flag_values=FLAGS
)
flags.DEFINE_string("csv", "", "File for the scores of each slice.", flag_values=FLAGS)
flags.DEFINE_string("json", "", "File for all scores.", flag_values=FLAGS)
app.define_overwrite(FLAGS)
app.define_quiet(FLAGS)


def compare(words: list[str]) -> None:
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


def main() -> None:
    app.run(compare, FLAGS, __doc__)
