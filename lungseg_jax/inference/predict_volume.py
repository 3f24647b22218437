"""Segment a volume slice by slice; memory holds its mask, and a few slices of it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from lungseg_jax.data.intensity import (
    checked_slices,
    describe_intensities,
    require_intensity,
    values_of,
)
from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.images import write_picture
from lungseg_jax.data.io.volume_writer import VolumeWriter, open_mask
from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.inference.confidence import Confidence
from lungseg_jax.inference.contact_sheet import ContactSheet, evenly_spaced
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.outputs import LABELS
from lungseg_jax.inference.overlay import overlay, stretch
from lungseg_jax.inference.prediction_table import PredictionTable
from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.inference.segmenter import LungSegmenter, Segmentation
from lungseg_jax.inference.volume_cleanup import mark_air
from lungseg_jax.inference.volume_mask import complete_mask
from lungseg_jax.inference.volume_view import VolumeView, VolumeViewer
from lungseg_jax.runtime import progress

SAMPLED = 9  # slices that are checked before any is segmented


@contextlib.contextmanager
def predict_volume(
    segmenter: LungSegmenter,
    task: PredictionTask,
    table: PredictionTable,
    *,
    volume_cleanup: bool,
    labels: str,
    write_page: Callable[[Path, VolumeView], None],
    begin: Callable[[], object],
) -> Iterator[None]:
    """Predict a volume and write all of its task; the mask appears after the block.

    It is there last, when all that belongs to it is there: the caller flushes the table in
    the block. For the arguments, see `predict_files`.

    Raises:
      UserError: the volume cannot be used, or an output cannot be written.
    """
    with table.volume(), open_volume(task.source, series=task.series) as volume:
        domain = _check_volume(segmenter, volume)
        begin()
        with open_mask(task.target, volume, LABELS[labels]) as writer:
            _predict(
                segmenter,
                task,
                volume,
                domain,
                table,
                writer.write,
                volume_cleanup,
                labels,
                write_page,
            )
            writer.finish()  # now, as some formats can still fail
            yield


def _predict(
    segmenter: LungSegmenter,
    task: PredictionTask,
    volume: Volume,
    domain: str,
    table: PredictionTable,
    write_mask: Callable[[int, np.ndarray], None],
    volume_cleanup: bool,
    labels: str,
    write_page: Callable[[Path, VolumeView], None],
) -> None:
    """Predict all slices, clean up the mask of the volume, and write all of the task."""
    with contextlib.ExitStack() as stack:
        sheet = ContactSheet(volume.count)
        shown = sheet.includes if task.overlay else lambda k: False
        segmented = _segment_slices(segmenter, task, volume, domain, stack)
        masks, confidences, uncertainty = _collect(segmented, volume, shown)
        in_hu = segmenter.trained.domain == "HU"
        lungs = complete_mask(masks, in_hu=in_hu, cleanup=volume_cleanup)
        for reason, flags in lungs.flags.items():
            for k in np.flatnonzero(flags):
                confidences[k] = confidences[k].with_reason(reason)
        written = lungs.sides if labels == "sides" else lungs.mask
        viewer = task.page and VolumeViewer(
            lungs.sides,
            spacing_mm=volume.spacing_mm,
            window_hu=segmenter.trained.window_hu,
            in_hu=in_hu,
        )
        for k, image in enumerate(volume.slices()):
            write_mask(k, written[k])
            mask, confidence = lungs.mask[k].astype(bool), confidences[k]
            if shown(k):
                window = segmenter.trained.window_hu
                picture = overlay(image, mask, uncertainty[k], window_hu=window)
                picture = stretch(picture, volume.aspect)
                sheet.add(k, picture, review=bool(confidence.review))
            if viewer:
                viewer.add(k, image, confidence.review, confidence.reasons)
            table.add_slice(
                task.name, k, image, mask, confidence, spacing_mm=volume.spacing_mm
            )
        voxels = {"right": lungs.right, "left": lungs.left}
        table.end_volume(task.name, volume.spacing_mm, **voxels)
        if viewer:
            viewer.add_planes(sheet)
            write_picture(task.overlay, sheet.picture())
            write_page(task.page, viewer.view(task.name, **voxels))


def _segment_slices(
    segmenter,
    task: PredictionTask,
    volume: Volume,
    domain: str,
    stack: contextlib.ExitStack,
) -> Iterator[tuple[np.ndarray, Segmentation]]:
    """Yield each slice with its segmentation, and write the maps of the task."""
    maps = {
        field: stack.enter_context(VolumeWriter(path, volume, np.float32))
        for field, path in task.maps.items()
    }
    bar = stack.enter_context(progress.bar(task.source.name, volume.count))
    slices = checked_slices(
        volume.slices(),
        segmenter.trained.domain,
        volume.name,
        volume=domain,
        is_dicom=volume.is_dicom,
    )
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


def _check_volume(segmenter: LungSegmenter, volume: Volume) -> str:
    """Read some slices of a volume before it is segmented; return its domain."""
    if not volume.is_placed:
        progress.say(
            f"{volume.name} does not say how it is oriented in the patient: its axes "
            "are assumed to point to left, posterior and superior"
        )
    values = values_of(map(volume.read, evenly_spaced(volume.count, SAMPLED)))
    domain = require_intensity(
        values, segmenter.trained.domain, volume.name, is_dicom=volume.is_dicom
    )
    progress.say(describe_intensities({domain}, values.low, values.high))
    return domain
