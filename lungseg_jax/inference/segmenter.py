"""The Python interface: segments CT slices and estimates the uncertainty of the masks."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.data.intensity import checked_slices, require_intensity, values_of
from lungseg_jax.data.io.dicom_files import is_dicom
from lungseg_jax.data.io.formats import (
    is_volume,
    open_volume,
    read_slice_array,
)
from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.inference.ensemble.loading import load_ensemble
from lungseg_jax.inference.ensemble.location import PRETRAINED, is_bundle
from lungseg_jax.inference.ensemble.predictor import (
    EnsemblePredictor,
    zip_with_predictions,
)
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.inference.image_arrays import as_images, checked_images, is_scan
from lungseg_jax.inference.outputs import POSTPROCESSING
from lungseg_jax.inference.postprocessing import postprocess
from lungseg_jax.inference.segmentation import Segmentation, stack
from lungseg_jax.inference.volume_cleanup import mark_air
from lungseg_jax.inference.volume_mask import complete_mask
from lungseg_jax.metrics.calibration import apply_temperature
from lungseg_jax.metrics.uncertainty import (
    disagreement,
    entropy,
    expected_iou,
    mutual_information,
)
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, unknown_name
from lungseg_jax.runtime.files import missing_path, user_path


class LungSegmenter:
    """Segments CT slices with the ensemble of a run or of a bundle.

        segmenter = lungseg_jax.load("runs/incp_snapshot-phantom")
        segmentation = segmenter(image)  # [h w], Hounsfield units
        segmentation.mask, segmentation.probability, segmentation.uncertainty

        segmentation = segmenter("scan.nii.gz")  # or an image of SimpleITK or nibabel
        segmentation.to_image()

    Threads may share a segmenter. The first call places the networks on the devices. Two
    programs are compiled, one for a single slice and one for a batch, whatever the size of
    the slices.

    Args:
      trained: the ensemble.
      flips: average over mirror images of each slice, at four times the cost.
      postprocessing: a key of `POSTPROCESSING`, or "tuned" for that of the run.

    Attributes:
      trained: the ensemble.
      settings: its tuned settings, with the clean-up that is in use.
      flips: whether it averages over mirror images.

    Raises:
      UserError: the clean-up is unknown.
    """

    def __init__(
        self,
        trained: TrainedEnsemble,
        *,
        flips: bool = False,
        postprocessing: str = "tuned",
    ):
        settings = trained.settings()
        if postprocessing == "tuned":
            postprocessing = settings.postprocessing
        if postprocessing not in POSTPROCESSING:
            raise unknown_name(
                "postprocessing", postprocessing, ["tuned", *POSTPROCESSING]
            )
        self.trained = trained
        self.settings = dataclasses.replace(settings, postprocessing=postprocessing)
        self.flips = flips

    def __repr__(self) -> str:
        members = ", ".join(self.trained.members)
        return f"LungSegmenter({str(self.trained.path)!r}, members: {members})"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is on the devices, so that a segmenter can be pickled."""
        return {k: v for k, v in self.__dict__.items() if k != "_predictor"}

    @functools.cached_property
    def _predictor(self) -> EnsemblePredictor:
        """Placed on the devices when the first slice is predicted."""
        return self.trained.predictor(flips=self.flips)

    def __call__(self, images: np.ndarray | str | PathLike | Any) -> Segmentation:
        """Segment a slice, several of equal size, or a scan.

        The arrays of a scan are in the standard orientation, whatever its own: axial
        slices `[n h w]` from feet to head, rows from front to back, columns from the
        patient's right to left. Its mask is that of `lungseg predict`, with clean-up in
        three dimensions, which arrays do not get.

        Args:
          images: `[h w]` or `[n h w]` of any size, integers or floats, axial slices; or a
            scan: an image of SimpleITK or nibabel in three dimensions (itself, not its
            array, whose axes may be others), or the path of a volume, a DICOM series or a
            DICOM file, which is a scan of one slice `[1 h w]`; or the path of a slice
            `[h w]` as TIFF, PNG or NPY. In the units that the run was trained on, usually
            Hounsfield units.

        Raises:
          UserError: the array has another shape, no pixels, values that are not finite,
            or other units than the training images; the scan cannot be read.
        """
        if isinstance(images, str | PathLike):
            return self._segment_file(user_path(images))
        if is_scan(images):
            from lungseg_jax.data.io.in_memory import open_image

            return self._segment_volume(open_image(images), like=images)
        return self._segment_arrays(images, "the array")

    def _segment_arrays(self, images: np.ndarray, name: str) -> Segmentation:
        images = as_images(images, dimensions=(2, 3))
        domain = require_intensity(values_of([images]), self.trained.domain, name)
        if images.ndim == 2:
            return next(self.stream([images]))
        slices = checked_slices(images, self.trained.domain, name, volume=domain)
        return stack(self.stream(slices), len(images))

    def stream(
        self, images: Iterable[np.ndarray], *, aspects: Iterable[float] = repeat(1.0)
    ) -> Iterator[Segmentation]:
        """Segment slices `[h w]` of any sizes, keeping two batches in memory.

        Units are not checked: the slices must have those that the run was trained on.

        Args:
          images: the slices.
          aspects: for each of them, the height of a pixel over its width.

        Raises:
          UserError: an array is not a slice, has values that are not finite, or has no
            aspect.
        """
        # Too few aspects: an error, where zip would end without a word.
        return self.stream_slices(zip(images, chain(aspects, repeat(None))))

    def stream_slices(
        self, slices: Iterable[tuple[np.ndarray, float]]
    ) -> Iterator[Segmentation]:
        """Segment like `stream`, each image being given together with its aspect."""
        predict = self._predictor.probabilities
        checked = checked_images(slices)
        for (image, _), members in zip_with_predictions(
            predict, checked, slice_of=tuple
        ):
            yield self.combine(members, image)

    def _segment_file(self, path: Path) -> Segmentation:
        if not path.exists():
            raise missing_path(path)
        if not is_dicom(path) and not is_volume(path):
            if path.is_dir():
                raise UserError(
                    f"{path} contains no DICOM files.",
                    rule="a folder is that of a DICOM series.",
                    remedy="name a file, or the folder of the series.",
                )
            return self._segment_arrays(read_slice_array(path), str(path))
        with open_volume(path) as volume:
            return self._segment_volume(volume)

    def _segment_volume(self, volume: Volume, *, like: Any = None) -> Segmentation:
        """Segment a scan; `like` is the image that it comes from, if any."""
        from lungseg_jax.data.io.in_memory import image_maker

        images, trained_on = np.stack(list(volume.slices())), self.trained.domain
        name, is_dicom = volume.name, volume.is_dicom
        values = values_of([images])
        domain = require_intensity(values, trained_on, name, is_dicom=is_dicom)
        checked = checked_slices(
            images, trained_on, name, volume=domain, is_dicom=is_dicom
        )
        stream = self.stream(checked, aspects=repeat(volume.aspect))
        slices = stack(stream, len(images))
        lungs = complete_mask(mark_air(images, slices.mask), in_hu=trained_on == "HU")
        flagged = np.array([bool(reasons) for reasons in lungs.reasons])
        has_geometry = volume.spacing_mm is not None
        return dataclasses.replace(
            slices,
            mask=lungs.mask.astype(bool),
            review=flagged if slices.review is None else slices.review | flagged,
            make_image=image_maker(like, volume.geometry) if has_geometry else None,
        )

    def combine(self, probabilities: np.ndarray, image: np.ndarray) -> Segmentation:
        """Combine the members' probabilities `[m h w]` of a slice `[h w]`."""
        settings, threshold = self.settings, self.trained.threshold
        mean = sum(probabilities) / len(probabilities)  # faster than np.mean
        in_hu = self.trained.in_hu(image)
        mask = postprocess(mean > threshold, settings.postprocessing, in_hu)
        calibrated = apply_temperature(mean, settings.temperature)
        expected, limit = expected_iou(calibrated, mask), settings.review_below
        return Segmentation(
            mask=mask,
            probability=calibrated,
            uncertainty=entropy(calibrated),
            mutual_information=mutual_information(probabilities),
            expected_iou=expected,
            disagreement=disagreement(probabilities > threshold),
            # NaN, as broken weights give, is below any limit.
            review=None if limit is None else not expected >= limit,
        )


def load(
    path: str | PathLike = PRETRAINED,
    *,
    members: str = "all",
    flips: bool = False,
    postprocessing: str = "tuned",
) -> LungSegmenter:
    """Load a segmenter from a run folder, or from a bundle written by `lungseg export`.

    Args:
      path: the folder, or hf://ORG/NAME for a bundle on the Hugging Face Hub; by default
        the weights of the package, trained on phantoms only.
      members: "all", "last", "average", or steps such as "686,1029".
      flips: see `LungSegmenter`.
      postprocessing: see `LungSegmenter`.

    Raises:
      UserError: the folder is neither, does not have these members, or is damaged; or the
        bundle cannot be downloaded.
    """
    trained = load_ensemble(path, members=members)
    if not trained.tuning:  # the run was interrupted, or its file is lost or changed
        remedy = "Repeat the command of the training to tune it"
        if is_bundle(trained.path):
            remedy = "Export it again from a finished run"
        progress.say(
            f"WARNING: {path} was not tuned: probabilities are not calibrated, and slices "
            f"are not flagged for their expected IoU. {remedy}"
        )
    return LungSegmenter(trained, flips=flips, postprocessing=postprocessing)
