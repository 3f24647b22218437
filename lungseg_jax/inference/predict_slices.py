"""Segment files that hold a slice each, in batches."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lungseg_jax.data.intensity import (
    describe_intensities,
    require_intensity,
    values_of,
)
from lungseg_jax.data.io.dicom_files import is_dicom
from lungseg_jax.data.io.formats import (
    open_volume,
    read_slice_array,
    write_slice,
)
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.images import write_picture
from lungseg_jax.inference.confidence import Confidence
from lungseg_jax.inference.ensemble.predictor import zip_with_predictions
from lungseg_jax.inference.measured_rows import slice_row
from lungseg_jax.inference.overlay import overlay
from lungseg_jax.inference.prediction_table import PredictionTable
from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, combine_errors, pluralize


def predict_slices(
    segmenter: LungSegmenter,
    tasks: Sequence[PredictionTask],
    table: PredictionTable,
    done: Callable[[PredictionTask], object],
) -> None:
    """Write the outputs of tasks whose inputs passed `check_slices`."""
    inputs = map(_read_slice, tasks)
    with progress.bar("predicting", len(tasks)) as bar:
        predictions = zip_with_predictions(segmenter.stream_slices, inputs)
        for task, (source, segmentation) in zip(tasks, predictions, strict=True):
            task.target.parent.mkdir(parents=True, exist_ok=True)
            stored = source.as_stored
            for name, path in task.maps.items():
                write_slice(path, stored(getattr(segmentation, name)))
            if task.overlay:
                shown = source.image, segmentation.mask, segmentation.uncertainty
                window = segmenter.trained.window_hu
                picture = overlay(*map(stored, shown), window_hu=window)
                write_picture(task.overlay, picture)
            row = slice_row(
                task.name,
                None,
                source.image,
                segmentation.mask,
                Confidence.of(segmentation),
                spacing_mm=source.spacing_mm,
            )
            table.add(row)
            table.flush()
            # The mask appears last, when all that belongs to it is there.
            mask = segmentation.mask.astype(np.uint8) * np.uint8(255)
            write_slice(task.target, stored(mask))
            done(task)
            bar.update()


def check_slices(segmenter: LungSegmenter, tasks: Sequence[PredictionTask]) -> None:
    """Read every slice before the first mask is written.

    Raises:
      UserError: some cannot be read, or have other units than the training images.
    """
    faults, domains, values = [], set(), []
    trained_on = segmenter.trained.domain
    with progress.bar("checking", len(tasks), unit="input") as bar:
        for task in tasks:
            try:
                source = _read_slice(task)
                values.append(values_of([source.image]))
                domain = require_intensity(
                    values[-1],
                    trained_on,
                    task.name,
                    is_dicom=source.geometry is not None,
                )
                domains.add(domain)
            except UserError as e:
                faults.append(e)
            bar.update()
    if faults:
        inputs = pluralize(len(tasks), "input")
        raise combine_errors(faults, f"{inputs}, nothing was written")
    low, high = min(v.low for v in values), max(v.high for v in values)
    progress.say(describe_intensities(domains, low, high))


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
            if volume.count != 1:
                raise UserError(
                    f"{task.source} has {volume.count} slices, too many for {task.target}.",
                    rule="the mask of several slices is a volume.",
                    remedy="name another format, such as .nii.gz.",
                )
            return _Slice(volume.read(0), volume.geometry)
    return _Slice(read_slice_array(task.source))
