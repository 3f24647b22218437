"""Segment the files of a plan: slices in batches, volumes slice by slice.

Memory holds the mask of one volume, and a few slices of it. One network is compiled for
all inputs.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lungseg_jax.data.intensity import DOMAINS, require_intensity, values_of
from lungseg_jax.data.io.formats import (
    is_dicom,
    open_volume,
    read_slice_array,
    write_slice,
)
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.images import write_picture
from lungseg_jax.data.io.volume_writer import VolumeWriter, open_mask
from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.inference import review
from lungseg_jax.inference.confidence import Confidence
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.outputs import LABELS
from lungseg_jax.inference.overlay import ContactSheet, overlay, stretch
from lungseg_jax.inference.prediction_table import PredictionTable
from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.inference.segmenter import LungSegmenter, Segmentation
from lungseg_jax.inference.sides import LEFT, RIGHT, label_sides
from lungseg_jax.inference.volume_cleanup import LUNG, clean_volume, mark_air
from lungseg_jax.inference.volume_view import VolumeView, VolumeViewer
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import (
    UserError,
    combine_errors,
    pluralize,
    unknown_name,
)

SAMPLED = 9  # slices of a volume that are checked before any is segmented


def predict_files(
    segmenter: LungSegmenter,
    tasks: Sequence[PredictionTask],
    table: PredictionTable,
    *,
    volume_cleanup: bool = True,
    labels: str = "lung",
    write_page: Callable[[Path, VolumeView], None] = lambda path, view: None,
    skip: bool | None = None,
    begin: Callable[[], object] = lambda: None,
) -> dict[str, UserError]:
    """Segment every input and write the outputs of its task.

    Args:
      segmenter: the trained ensemble.
      tasks: returned by `plan_outputs`.
      table: receives a row for each slice and each volume.
      volume_cleanup: see `clean_volume`.
      labels: a key of LABELS.
      write_page: writes the page of a volume, where the task has one.
      skip: whether volumes that cannot be used are skipped; by default, if there are
        several tasks.
      begin: called before anything is written for a task.

    Returns:
      The errors of the volumes that were skipped, by the name of their task. They have no
      mask.

    Raises:
      UserError: a slice, or a volume that is not skipped, cannot be used. Nothing is
        written of it; of slices, nothing at all.
    """
    skip = len(tasks) > 1 if skip is None else skip
    _require_labels(labels, tasks)
    volumes = [task for task in tasks if task.is_volume]
    slices = [task for task in tasks if not task.is_volume]
    if slices:
        _check_slices(segmenter, slices)
        begin()
        _predict_slices(segmenter, slices, table)
    skipped = {}
    for task in volumes:
        try:
            with table.volume():
                _predict_volume(
                    segmenter, task, table, volume_cleanup, labels, write_page, begin
                )
        except UserError as e:
            if not skip:
                raise
            progress.say(f"skipped: {e.what}")
            skipped[task.name] = e
    return skipped


def _predict_slices(segmenter, tasks: Sequence[PredictionTask], table) -> None:
    inputs = map(_read_slice, tasks)
    with progress.bar("predicting", len(tasks)) as bar:
        predictions = zip_with_predictions(segmenter.stream, inputs)
        for task, (source, segmentation) in zip(tasks, predictions, strict=True):
            task.target.parent.mkdir(parents=True, exist_ok=True)
            stored = source.as_stored
            for name, path in task.maps.items():
                write_slice(path, stored(getattr(segmentation, name)))
            if task.overlay:
                shown = source.image, segmentation.mask, segmentation.uncertainty
                write_picture(task.overlay, _picture(segmenter, *map(stored, shown)))
            table.add_slice(
                task.name,
                None,
                source.image,
                segmentation.mask,
                Confidence.of(segmentation),
                spacing_mm=source.spacing_mm,
            )
            table.flush()
            # The mask appears last, when all that belongs to it is there.
            mask = segmentation.mask.astype(np.uint8) * np.uint8(255)
            write_slice(task.target, stored(mask))
            bar.update()


def _predict_volume(
    segmenter, task: PredictionTask, table, volume_cleanup, labels, write_page, begin
) -> None:
    """Predict all slices, clean up the mask of the volume, and write all of the task."""
    with contextlib.ExitStack() as stack:
        volume = stack.enter_context(open_volume(task.source, series=task.series))
        _check_volume(segmenter, volume)
        begin()
        task.target.parent.mkdir(parents=True, exist_ok=True)
        # The first to be entered, so that the mask appears last, when all else is there.
        mask_writer = open_mask(task.target, volume, LABELS[labels])
        writer = stack.enter_context(mask_writer)
        sheet = ContactSheet(volume.count)
        shown = sheet.includes if task.overlay else lambda k: False
        segmented = _segment_slices(segmenter, task, volume, stack)
        masks, confidences, uncertainty = _collect(segmented, volume, shown)
        if volume_cleanup:
            clean_volume(masks, has_air=segmenter.trained.domain == "HU")
        np.minimum(masks, LUNG, out=masks)
        sides = label_sides(masks)
        confidences = _with_reasons(confidences, masks, sides)
        written = sides if labels == "sides" else masks
        viewer = task.page and VolumeViewer(
            sides,
            spacing_mm=volume.spacing_mm,
            window_hu=_window(segmenter),
            in_hu=segmenter.trained.domain == "HU",
        )
        for k, image in enumerate(volume.slices()):
            writer.write(k, written[k])
            mask, confidence = masks[k].astype(bool), confidences[k]
            if shown(k):
                picture = _picture(segmenter, image, mask, uncertainty[k])
                picture = stretch(picture, volume.aspect)
                sheet.add(k, picture, review=bool(confidence.review))
            if viewer:
                viewer.add(k, image, confidence.review, confidence.reasons)
            table.add_slice(
                task.name, k, image, mask, confidence, spacing_mm=volume.spacing_mm
            )
        right, left = (np.count_nonzero(sides == side) for side in (RIGHT, LEFT))
        table.end_volume(task.name, volume.spacing_mm, right=right, left=left)
        if viewer:
            viewer.add_planes(sheet)
            write_picture(task.overlay, sheet.picture())
            write_page(task.page, viewer.view(task.name))


def _segment_slices(
    segmenter, task: PredictionTask, volume: Volume, stack: contextlib.ExitStack
) -> Iterator[tuple[np.ndarray, Segmentation]]:
    """Yield each slice with its segmentation, and write the maps of the task."""
    maps = {
        field: stack.enter_context(VolumeWriter(path, volume, np.float32))
        for field, path in task.maps.items()
    }
    bar = stack.enter_context(progress.bar(task.source.name, volume.count))
    slices = _checked_slices(volume, segmenter.trained.domain)
    segmented = zip_with_predictions(
        segmenter.stream,
        slices,
        image_of=lambda image: image,
        aspect_of=lambda image: volume.aspect,
    )
    for k, (image, segmentation) in enumerate(segmented):
        for field, writer in maps.items():
            writer.write(k, getattr(segmentation, field))
        yield image, segmentation
        bar.update()


def _collect(
    segmented: Iterable[tuple[np.ndarray, Segmentation]],
    volume: Volume,
    shown: Callable[[int], bool],
) -> tuple[np.ndarray, list[Confidence], dict[int, np.ndarray]]:
    """Keep what is needed of all slices.

    Returns:
      The masks `[n h w]` as `clean_volume` takes them, the confidence of each slice, and
      the uncertainty `[h w]` of those that are shown, by slice.
    """
    masks = np.zeros((volume.count, *volume.shape), np.uint8)
    confidences, uncertainty = [], {}
    for k, (image, segmentation) in enumerate(segmented):
        masks[k] = mark_air(image, segmentation.mask)
        confidences.append(Confidence.of(segmentation))
        if shown(k):
            uncertainty[k] = segmentation.uncertainty
    return masks, confidences, uncertainty


def _with_reasons(
    confidences: Sequence[Confidence], masks: np.ndarray, sides: np.ndarray
) -> list[Confidence]:
    """Add what the mask of the volume says against itself."""
    found = {
        review.NEIGHBOURS: review.unlike_neighbours(masks),
        review.SIDES: review.sides_differ(sides),
    }
    confidences = list(confidences)
    for reason, is_found in found.items():
        for k in np.flatnonzero(is_found):
            confidences[k] = confidences[k].with_reason(reason)
    return confidences


def _require_labels(labels: str, tasks: Sequence[PredictionTask]) -> None:
    if labels not in LABELS:
        raise unknown_name("labels", labels, LABELS)
    slices = [task.source for task in tasks if not task.is_volume]
    if labels == "sides" and slices:
        raise UserError(
            f"labels=sides: {slices[0]} is a slice.",
            rule="a slice does not say which side of the patient it shows; a volume does.",
            remedy="leave --labels out, or predict volumes.",
        )


def _checked_slices(volume: Volume, trained_on: str) -> Iterator[np.ndarray]:
    """Yield all slices; only a sample of them was checked beforehand."""
    for k, image in enumerate(volume.slices()):
        require_intensity(values_of([image]), trained_on, f"slice {k} of {volume.name}")
        yield image


def _picture(segmenter, image, mask, uncertainty) -> np.ndarray:
    return overlay(image, mask, uncertainty, window_hu=_window(segmenter))


def _window(segmenter: LungSegmenter) -> tuple[float, float]:
    return segmenter.trained.preprocessing["window_hu"]


def _check_slices(segmenter: LungSegmenter, tasks: Sequence[PredictionTask]) -> None:
    """Read every slice before the first mask is written."""
    faults, domains, values = [], set(), []
    trained_on = segmenter.trained.domain
    with progress.bar("checking", len(tasks), unit="input") as bar:
        for task in tasks:
            try:
                values.append(values_of([_read_slice(task).image]))
                domains.add(require_intensity(values[-1], trained_on, task.name))
            except UserError as e:
                faults.append(e)
            bar.update()
    if faults:
        inputs = pluralize(len(tasks), "input")
        raise combine_errors(faults, f"{inputs}, nothing was written")
    low, high = min(v.low for v in values), max(v.high for v in values)
    _say_intensities(domains, low, high)


def _check_volume(segmenter: LungSegmenter, volume: Volume) -> None:
    """Read some slices of a volume before it is segmented."""
    if not volume.is_placed:
        progress.say(
            f"{volume.name} does not say how it is oriented in the patient: its axes "
            "are assumed to point to left, posterior and superior"
        )
    n = min(volume.count, SAMPLED)
    sampled = np.linspace(0, volume.count - 1, n).round().astype(int).tolist()
    values = values_of(volume.read(k) for k in sampled)
    domain = require_intensity(values, segmenter.trained.domain, volume.name)
    _say_intensities({domain}, values.low, values.high)


def _say_intensities(domains: set[str], low: float, high: float) -> None:
    kinds = " and ".join(DOMAINS[domain] for domain in sorted(domains))
    progress.say(f"intensities: {kinds} ({low:g} to {high:g})")


class _Slice(NamedTuple):
    """A slice `[h w]` in the standard orientation, with the geometry that DICOM states."""

    image: np.ndarray
    geometry: Geometry | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        return self.geometry and self.geometry.spacing_mm

    @property
    def aspect(self) -> float:
        return self.geometry.aspect if self.geometry else 1.0

    def as_stored(self, image: np.ndarray) -> np.ndarray:
        """Turn a result for the slice into the orientation of the file's pixels."""
        if self.geometry is None:
            return image
        return np.ascontiguousarray(self.geometry.from_standard(image))


def _read_slice(task: PredictionTask) -> _Slice:
    if is_dicom(task.source):
        with open_volume(task.source, series=task.series) as volume:
            return _Slice(volume.read(0), volume.geometry)
    return _Slice(read_slice_array(task.source))
