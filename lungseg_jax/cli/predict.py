"""Segment the lungs in a slice, a folder of slices, a volume or a DICOM series.

    lungseg predict scan.nii.gz lungs.nii.gz
    lungseg predict --run=runs/incp_snapshot-phantom slice.tif mask.png
    lungseg predict --run=RUN --overlay --csv=lungs.csv images/ masks/
    lungseg predict --labels=sides scan.nii.gz lungs.nii.gz
    lungseg predict --run=RUN --uncertainty dicom_folder/ lungs.mha
    lungseg predict --run=BUNDLE --members=last --quiet scan.nrrd lungs.nrrd
    lungseg predict --overlay --csv=lungs.csv --resume patients/ masks/

INPUT is a TIFF, PNG or NumPy file, a NIfTI, NRRD or MetaImage volume, a DICOM file or the
folder of a DICOM series, or a folder of such files and series. Volumes and series are found
at any depth, such as patients/PATIENT/STUDY/SERIES. OUTPUT is a file for one input and a
folder for several, in which each mask has the place and the name of its input. Masks have
the size and the geometry of their input, with values 0 and 255 for a slice and 0 and 1 for
a volume. Inputs are never written to. Of several volumes, one that cannot be used is
skipped, and named at the end with exit status 2. Without --run, the weights are those of
the package, which were trained on synthetic slices only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from lungseg_jax.cli import app
from lungseg_jax.inference.ensemble.bundle import PRETRAINED
from lungseg_jax.inference.plan import (
    MAPS,
    PredictionTask,
    plan_outputs,
    unfinished,
)
from lungseg_jax.inference.predict_files import LABELS, predict_files
from lungseg_jax.inference.prediction_table import PredictionTable, read_rows
from lungseg_jax.inference.segmenter import load
from lungseg_jax.reporting.index_page import write_index_page
from lungseg_jax.reporting.volume_page import write_volume_page
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import combine_errors, pluralize
from lungseg_jax.runtime.files import user_path

INDEX = "index.html"  # of the pages of several volumes

FLAGS = flags.FlagValues()
app.define_run(
    FLAGS,
    "Run folder, or bundle; by default the weights of the package.",
    default=PRETRAINED,
)
app.define_members(FLAGS)
app.define_flips(FLAGS)
flags.DEFINE_string(
    "postprocessing",
    "tuned",
    "Clean-up of masks, such as none; tuned: the default of the run.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "volume_cleanup",
    True,
    "Drop what is not connected to a lung in a volume, and fill cavities.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "labels",
    "lung",
    list(LABELS),
    "Values of the masks of volumes; "
    + "; ".join(f"{name}: {meaning}" for name, meaning in LABELS.items())
    + ".",
    flag_values=FLAGS,
)
for name, meaning in MAPS.items():
    flags.DEFINE_bool(
        name, False, f"Write the {meaning}, as a separate image.", flag_values=FLAGS
    )
flags.DEFINE_bool(
    "overlay",
    False,
    "Write pictures of the masks on the slices, and a page for each volume.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "csv",
    "",
    "File for the area, density and confidence of each slice.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "format",
    "",
    "Format of the masks in a folder: .png, .nii.gz, ...",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "series", "", "UID of a DICOM series, for a folder with several.", flag_values=FLAGS
)
flags.DEFINE_bool(
    "resume",
    False,
    "Keep the masks that are there, with their rows in --csv, and predict the rest.",
    flag_values=FLAGS,
)
app.define_overwrite(FLAGS)
app.define_quiet(FLAGS)


def predict(words: list[str]) -> None:
    source, target = app.positional(words, ["INPUT", "OUTPUT"])
    if FLAGS.quiet:
        progress.silence()
    csv = user_path(FLAGS.csv) if FLAGS.csv else None
    index = target / INDEX if FLAGS.overlay and source.is_dir() else None
    tasks = plan_outputs(
        source,
        target,
        format=FLAGS.format,
        series=FLAGS.series,
        maps=[name for name in MAPS if FLAGS[name].value],
        overlay=FLAGS.overlay,
        extra_outputs=[path for path in (csv, index) if path],
        overwrite=FLAGS.overwrite or FLAGS.resume,
    )
    left, kept = _left_to_do(tasks, csv) if FLAGS.resume else (tasks, [])
    if FLAGS.run == PRETRAINED:
        progress.say(
            "weights: those of the package, trained on synthetic slices; for research only"
        )
    segmenter = load(
        FLAGS.run,
        members=FLAGS.members,
        flips=FLAGS.flips,
        postprocessing=FLAGS.postprocessing,
    )
    limit = segmenter.settings.review_below
    domain = segmenter.trained.domain
    with PredictionTable(csv, domain=domain, review_below=limit, kept=kept) as table:
        skipped = predict_files(
            segmenter,
            left,
            table,
            volume_cleanup=FLAGS.volume_cleanup,
            labels=FLAGS.labels,
            write_page=write_volume_page,
        )
    pages = {task.name: task.page for task in tasks if task.page}
    if index and len(pages) > 1:
        write_index_page(index, pages, table.volumes)
    progress.say(table.summary())
    progress.say(f"wrote {pluralize(len(left) - len(skipped), 'mask')} to {target}")
    if skipped:
        raise combine_errors(skipped, f"{pluralize(len(left), 'input')}, skipped")


def _left_to_do(
    tasks: Sequence[PredictionTask], csv: Path | None
) -> tuple[list[PredictionTask], list[Mapping[str, str]]]:
    """Return the tasks that are left, and the rows of the table that are kept."""
    rows = read_rows(csv) if csv and csv.exists() else {}
    left = unfinished(tasks, measured=rows if csv else None)
    progress.say(
        f"{pluralize(len(tasks) - len(left), 'mask')} already there, {len(left)} to do"
    )
    again = {task.name for task in left}
    kept = [row for name in rows if name not in again for row in rows[name]]
    return left, kept


def main() -> None:
    app.run(
        predict,
        FLAGS,
        __doc__,
        when_interrupted="the masks written so far are complete; --resume adds the rest.",
    )
