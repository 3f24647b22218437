"""Segment a volume slice by slice; memory holds its mask, and a few slices of it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

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
from lungseg_jax.inference.measured_rows import VolumeRows
from lungseg_jax.inference.outputs import LABELS
from lungseg_jax.inference.prediction_table import PredictionTable
from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.inference.volume_cleanup import mark_air
from lungseg_jax.inference.volume_mask import complete_mask
from lungseg_jax.inference.volume_pictures import VolumePictures
from lungseg_jax.inference.volume_view import VolumeView
from lungseg_jax.runtime import progress

SAMPLED = 9  # slices that are checked before any is segmented
MAX_TILT = 25  # degrees, beyond which a line says that a volume is oblique


def predict_volume(
    segmenter: LungSegmenter,
    task: PredictionTask,
    table: PredictionTable,
    *,
    volume_cleanup: bool,
    labels: str,
    write_page: Callable[[Path, VolumeView], None],
    begin: Callable[[], object],
) -> None:
    """Predict a volume and write all of its task; for the arguments, see `predict_files`.

    Its mask appears last, when all that belongs to it is there.

    Raises:
      UserError: the volume cannot be used, and is not in the table; or an output cannot be
        written.
    """
    with open_volume(task.source, series=task.series) as volume:
        domain = _check_volume(segmenter, volume)
        begin()
        with open_mask(task.target, volume, LABELS[labels]) as writer:
            with _open_maps(task, volume) as maps:
                sheet = ContactSheet(volume.count) if task.overlay else None
                slices = _segment_slices(segmenter, volume, domain, maps, sheet)
                in_hu = segmenter.trained.domain == "HU"
                lungs = complete_mask(slices.masks, in_hu=in_hu, cleanup=volume_cleanup)
                labelled = lungs.sides if labels == "sides" else lungs.mask
                pictures = sheet and VolumePictures(
                    volume,
                    lungs,
                    sheet,
                    slices.uncertainty,
                    window_hu=segmenter.trained.window_hu,
                    in_hu=in_hu,
                )
                rows = VolumeRows(task.name, volume.spacing_mm)
                for k, image in enumerate(volume.slices()):
                    confidence = slices.confidences[k].with_reasons(lungs.reasons[k])
                    writer.write(k, labelled[k])
                    rows.add(k, image, lungs.mask[k].astype(bool), confidence)
                    if pictures:
                        pictures.add(k, image, confidence)
                if pictures:
                    picture, view = pictures.finish(task.name)
                    write_picture(task.overlay, picture)
                    write_page(task.page, view)
                writer.finish()  # now, as some formats can still fail
            table.add(*rows.finish(right=lungs.right, left=lungs.left))
            table.flush()


@contextlib.contextmanager
def _open_maps(
    task: PredictionTask, volume: Volume
) -> Iterator[Mapping[str, VolumeWriter]]:
    """Open the maps of the task, by field; they appear after the block, if it succeeds."""
    with contextlib.ExitStack() as stack:
        yield {
            field: stack.enter_context(VolumeWriter(path, volume, np.float32))
            for field, path in task.maps.items()
        }


class _Slices(NamedTuple):
    """What is kept of all slices.

    Attributes:
      masks: uint8 `[n h w]`, as `mark_air` returns them.
      confidences: one for each slice.
      uncertainty: `[h w]` of the slices that the sheet includes, by slice.
    """

    masks: np.ndarray
    confidences: list[Confidence]
    uncertainty: dict[int, np.ndarray]


def _segment_slices(
    segmenter: LungSegmenter,
    volume: Volume,
    domain: str,
    maps: Mapping[str, VolumeWriter],
    sheet: ContactSheet | None,
) -> _Slices:
    """Segment each slice by itself, and write the maps."""
    masks = np.zeros((volume.count, *volume.shape), np.uint8)
    kept = _Slices(masks, confidences=[], uncertainty={})
    checked = checked_slices(
        volume.slices(),
        segmenter.trained.domain,
        volume.name,
        volume=domain,
        is_dicom=volume.is_dicom,
    )
    segmented = zip_with_predictions(
        segmenter.stream_slices,
        checked,
        slice_of=lambda image: (image, volume.aspect),
    )
    with progress.bar(Path(volume.name).name, volume.count) as bar:
        for k, (image, segmentation) in enumerate(segmented):
            for field, writer in maps.items():
                writer.write(k, getattr(segmentation, field))
            kept.masks[k] = mark_air(image, segmentation.mask)
            kept.confidences.append(Confidence.of(segmentation))
            if sheet and sheet.includes(k):
                kept.uncertainty[k] = segmentation.uncertainty
            bar.update()
    return kept


def _check_volume(segmenter: LungSegmenter, volume: Volume) -> str:
    """Read some slices of a volume before it is segmented; return its domain."""
    if not volume.is_placed:
        progress.say(
            f"{volume.name} does not say how it is oriented in the patient: its axes "
            "are assumed to point to left, posterior and superior"
        )
    if volume.geometry.tilt > MAX_TILT:
        progress.say(
            f"{volume.name} is oblique: its axes are up to {volume.geometry.tilt:.0f} "
            "degrees from those of the patient, so masks are less reliable; resample it "
            "to axial slices"
        )
    values = values_of(map(volume.read, evenly_spaced(volume.count, SAMPLED)))
    domain = require_intensity(
        values, segmenter.trained.domain, volume.name, is_dicom=volume.is_dicom
    )
    progress.say(describe_intensities({domain}, values.low, values.high))
    return domain
