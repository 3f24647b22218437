"""Writes lung masks for a slice, a folder of slices, a volume or a DICOM series.

    lungseg predict --run=runs/incp_snapshot-phantom slice.tif mask.png
    lungseg predict --run=RUN --overlay --csv=lungs.csv images/ masks/
    lungseg predict --run=RUN scan.nii.gz lungs.nii.gz
    lungseg predict --run=RUN --uncertainty dicom_folder/ lungs.mha
    lungseg predict --run=BUNDLE --members=last --quiet scan.nrrd lungs.nrrd

INPUT is a TIFF, PNG or NumPy file, a NIfTI, NRRD or MetaImage volume, a DICOM file or the
folder of a DICOM series, or a folder of such files and series. OUTPUT is a file for one
input and a folder for several, where each mask takes the name of its input. Masks have
the size and the geometry of their input; they are 0 and 255 for a slice, 0 and 1 for a
volume. Inputs are never written to.

`python -m lungseg_jax.cli.predict` is the same command.
"""

from lungseg_jax.runtime import signals

if __name__ == "__main__":
    signals.install_handlers()

import contextlib
from collections.abc import Iterator
from operator import itemgetter

import numpy as np
from absl import flags

from lungseg_jax.cli import app
from lungseg_jax.data.intensity import DOMAINS, Values, require_intensity, values_of
from lungseg_jax.data.io.formats import (
    is_dicom,
    open_volume,
    read_slice_array,
    write_slice,
)
from lungseg_jax.data.io.images import write_picture
from lungseg_jax.data.io.volume_writer import VolumeWriter
from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.overlay import ContactSheet, overlay
from lungseg_jax.inference.plan import MAPS, PredictionTask, plan_outputs
from lungseg_jax.inference.prediction_table import PredictionTable
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, combine_errors, pluralize
from lungseg_jax.runtime.files import user_path

FLAGS = flags.FLAGS
SAMPLED = 9  # slices of a volume that are looked at before any is segmented


def predict(
    segmenter: LungSegmenter,
    jobs: list[PredictionTask],
    findings: PredictionTable,
    *,
    series: str = "",
) -> None:
    """Segments every input and writes what its job names.

    Args:
      segmenter: of the run.
      jobs: of `jobs.plan`.
      findings: gets a row for each slice and each volume.
      series: UID of the DICOM series, where a folder has several.

    Raises:
      UserError: an input that cannot be used; nothing is written then, but for volumes
        before one that turns out to be damaged in its midst.
    """
    _check_inputs(segmenter, jobs, series)
    slices = [job for job in jobs if not job.is_volume]
    _predict_slices(segmenter, slices, findings, series)
    for job in jobs:
        if job.is_volume:
            _predict_volume(segmenter, job, findings, series)


def _predict_slices(
    segmenter, jobs: list[PredictionTask], findings: PredictionTable, series
) -> None:
    if not jobs:
        return
    images = (_read(job, series) for job in jobs)
    with progress.bar("predicting", len(jobs)) as bar:
        answers = zip_with_predictions(segmenter.stream, images, image_of=itemgetter(0))
        for job, ((image, spacing), found) in zip(jobs, answers, strict=True):
            job.target.parent.mkdir(parents=True, exist_ok=True)
            write_slice(job.target, found.mask.astype(np.uint8) * np.uint8(255))
            for what, path in job.maps.items():
                write_slice(path, getattr(found, what))
            if job.overlay:
                write_picture(job.overlay, _picture(segmenter, image, found))
            name = str(job.source)
            findings.add_slice(name, None, image, found, spacing_mm=spacing)
            bar.update()


def _predict_volume(
    segmenter, job: PredictionTask, findings: PredictionTable, series: str
) -> None:
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        volume = stack.enter_context(open_volume(job.source, series=series))
        masks = stack.enter_context(VolumeWriter(job.target, volume, np.uint8))
        maps = {
            what: stack.enter_context(VolumeWriter(path, volume, np.float32))
            for what, path in job.maps.items()
        }
        sheet = ContactSheet(volume.count)
        bar = stack.enter_context(progress.bar(job.source.name, volume.count))
        slices = _of_domain(volume, segmenter.trained.domain)
        answers = zip_with_predictions(segmenter.stream, slices)
        for k, (image, found) in enumerate(answers):
            masks.write(k, found.mask.astype(np.uint8))
            for what, writer in maps.items():
                writer.write(k, getattr(found, what))
            if job.overlay and sheet.includes(k):
                picture = _picture(segmenter, image, found)
                sheet.add(k, picture, review=bool(found.review))
            findings.add_slice(
                str(job.source), k, image, found, spacing_mm=volume.spacing_mm
            )
            bar.update()
        findings.end_volume(str(job.source), volume.spacing_mm)
    if job.overlay:
        write_picture(job.overlay, sheet.picture())


def _of_domain(volume: Volume, trained_on: str) -> Iterator[np.ndarray]:
    """Its slices: some alone were looked at before."""
    for k, image in enumerate(volume.slices()):
        require_intensity(values_of([image]), trained_on, f"slice {k} of {volume.name}")
        yield image


def _picture(segmenter, image, found) -> np.ndarray:
    window = segmenter.trained.preprocessing["window_hu"]
    return overlay(image, found.mask, found.uncertainty, window_hu=window)


def _check_inputs(
    segmenter: LungSegmenter, jobs: list[PredictionTask], series: str
) -> None:
    """Reads every slice, and some of each volume, before the first mask is written."""
    faults, domains, seen = [], set(), []
    with progress.bar("checking", len(jobs), unit="input") as bar:
        for job in jobs:
            try:
                values = _values(job, series)
                trained_on = segmenter.trained.domain
                domains.add(require_intensity(values, trained_on, str(job.source)))
                seen.append(values)
            except UserError as e:
                faults.append(e)
            bar.update()
    if faults:  # nothing was written
        raise combine_errors(
            faults, f"{pluralize(len(jobs), 'input')}, nothing was written"
        )
    low, high = min(one.low for one in seen), max(one.high for one in seen)
    words = " and ".join(DOMAINS[domain] for domain in sorted(domains))
    progress.say(f"intensities: {words} ({low:g} to {high:g})")


def _values(job: PredictionTask, series: str) -> Values:
    if not job.is_volume:
        return values_of([_read(job, series)[0]])
    with open_volume(job.source, series=series) as volume:
        if not volume.is_placed:
            progress.say(
                f"{job.source} does not say how it lies in the patient: its axes are "
                "taken for left, posterior and superior"
            )
        return values_of(volume.read(k) for k in _sampled(volume))


def _sampled(volume: Volume) -> list[int]:
    n = min(volume.count, SAMPLED)
    return np.linspace(0, volume.count - 1, n).round().astype(int).tolist()


def _read(job: PredictionTask, series: str) -> tuple[np.ndarray, tuple | None]:
    """A slice and its spacing, as a `Volume` has it."""
    if is_dicom(job.source):
        with open_volume(job.source, series=series) as volume:
            return volume.read(0), volume.spacing_mm
    return read_slice_array(job.source), None


def main(words: list[str]) -> None:
    source, target = app.positional(words, ["INPUT", "OUTPUT"])
    if FLAGS.quiet:
        progress.silence()
    table = user_path(FLAGS.csv) if FLAGS.csv else None
    jobs = plan_outputs(
        source,
        target,
        format=FLAGS.format,
        maps=[what for what in MAPS if FLAGS[what].value],
        overlay=FLAGS.overlay,
        others=(table,) if table else (),
        overwrite=FLAGS.overwrite,
    )
    segmenter = LungSegmenter.from_run(
        user_path(FLAGS.run),
        members=FLAGS.members,
        flips=FLAGS.flips,
        postprocessing=FLAGS.postprocessing,
    )
    limit = segmenter.decision.review_below
    domain = segmenter.trained.domain
    with PredictionTable(table, domain=domain, review_below=limit) as findings:
        predict(segmenter, jobs, findings, series=FLAGS.series)
    progress.say(findings.summary())
    progress.say(f"wrote {pluralize(len(jobs), 'mask')} to {target}")


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "Folder of a run, or a bundle.", required=True)
    flags.DEFINE_string(
        "members", "all", "all, last, best, greedy, average, or steps as 400,600."
    )
    flags.DEFINE_bool(
        "flips", False, "Average over mirror images: four times the work."
    )
    flags.DEFINE_string(
        "postprocessing", "tuned", "none, or another; tuned: chosen on validation."
    )
    for what, meaning in MAPS.items():
        flags.DEFINE_bool(what, False, f"Write the {meaning}, as an image of its own.")
    flags.DEFINE_bool("overlay", False, "Write pictures of the masks on the slices.")
    flags.DEFINE_string(
        "csv", "", "File for area, density and certainty of each slice."
    )
    flags.DEFINE_string("format", "", "Of masks in a folder: .png, .nii.gz, ...")
    flags.DEFINE_string("series", "", "UID of a DICOM series, where there are several.")
    flags.DEFINE_bool("overwrite", False, "Replace outputs that exist.")
    flags.DEFINE_bool("quiet", False, "Print errors alone.")
    app.run(main, __doc__, when_interrupted="masks written so far are whole.")
