"""From images to masks, with how sure they are: the Python interface."""

import dataclasses
from collections.abc import Iterable, Iterator
from os import PathLike

import numpy as np

from lungseg_jax.data.intensity import require_finite, require_intensity, values_of
from lungseg_jax.inference.ensemble.loading import load_ensemble
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.inference.postprocessing import POSTPROCESSING, postprocess
from lungseg_jax.metrics.calibration import apply_temperature
from lungseg_jax.metrics.uncertainty import (
    disagreement,
    entropy,
    expected_iou,
    mutual_information,
)
from lungseg_jax.runtime.errors import UserError, unknown_name


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no one truth of equality
class Segmentation:
    """The lungs in one slice `[h w]`, or in several of one size `[n h w]`.

    Attributes:
      mask: `[... h w]` bool: the mean of the members is above the run's threshold, cleaned.
      probability: `[... h w]` float32, of lung; calibrated where there was a validation
        split. The threshold is one of the mean before that; 0.5 is the same of both.
      uncertainty: `[... h w]` float32, entropy of that probability in bits, 0 to 1.
      mutual_information: `[... h w]` float32, disagreement of the members before
        calibration, in bits; 0 for one member.
      expected_iou: float or `[n]`, the IoU that the probabilities promise for the mask.
      disagreement: float or `[n]`, share of the pixels that any member calls lung and not
        all do.
      review: bool or `[n]`, whether a person should look at it: the expected IoU is below
        the limit that was chosen on the validation split. None without such a split.
    """

    mask: np.ndarray
    probability: np.ndarray
    uncertainty: np.ndarray
    mutual_information: np.ndarray
    expected_iou: float | np.ndarray
    disagreement: float | np.ndarray
    review: bool | np.ndarray | None


class LungSegmenter:
    """Segments CT slices by the members of a run or of a bundle.

        segmenter = lungseg_jax.load("runs/incp_snapshot-phantom")
        found = segmenter(image)  # [h w], Hounsfield units
        found.mask, found.probability, found.uncertainty

    Threads may share one: a call changes nothing. Two programs are compiled, for a single
    slice and for a batch, whatever the size of the slices.

    Args:
      trained: the members.
      flips: average over mirror images as well, for four times the work.
      postprocessing: key of `POSTPROCESSING`; "tuned" is what the validation split chose.
    """

    def __init__(
        self,
        trained: TrainedEnsemble,
        *,
        flips: bool = False,
        postprocessing: str = "tuned",
    ):
        decision = trained.settings()
        if postprocessing == "tuned":
            postprocessing = decision.postprocessing
        if postprocessing not in POSTPROCESSING:
            raise unknown_name(
                "postprocessing", postprocessing, ["tuned", *POSTPROCESSING]
            )
        self.trained = trained
        self.settings = dataclasses.replace(decision, postprocessing=postprocessing)
        self._ensemble = trained.predictor(flips=flips)

    def __call__(self, images: np.ndarray) -> Segmentation:
        """Segments one slice or several of one size.

        Args:
          images: `[h w]` or `[n h w]` of any size, integers or floats, with the values
            that the run was trained on: Hounsfield units, as a rule.

        Raises:
          UserError: the array has another shape, no pixels, values that are not finite,
            or values of another kind than those of the training.
        """
        images = _checked(images, (2, 3))
        require_intensity(values_of([images]), self.trained.domain, "the array")
        if images.ndim == 2:
            return next(self.stream([images]))
        found = list(self.stream(images))
        names = [field.name for field in dataclasses.fields(Segmentation)]
        columns = {name: [getattr(one, name) for one in found] for name in names}
        if found[0].review is None:
            columns["review"] = None
        return Segmentation(
            **{n: None if c is None else np.stack(c) for n, c in columns.items()}
        )

    def stream(self, images: Iterable[np.ndarray]) -> Iterator[Segmentation]:
        """Segments slices `[h w]` of any sizes; memory holds a batch at a time.

        Their values are taken for what the run was trained on.

        Raises:
          UserError: one is no slice, or has values that are not finite.
        """
        checked = (_checked(image, (2,)) for image in images)
        return map(self.combine, self._ensemble.probabilities(checked))

    def decide(self, members: np.ndarray) -> Segmentation:
        """The answer to a slice from its members' probabilities `[m h w]`."""
        decision, threshold = self.settings, self.trained.threshold
        mean = members.mean(axis=0)
        mask = postprocess(mean > threshold, decision.postprocessing)
        probability = apply_temperature(mean, decision.temperature)
        expected, limit = expected_iou(probability, mask), decision.review_below
        return Segmentation(
            mask=mask,
            probability=probability,
            uncertainty=entropy(probability),
            mutual_information=mutual_information(members),
            expected_iou=expected,
            disagreement=disagreement(members > threshold),
            review=None if limit is None else not expected >= limit,
        )


def _checked(images: np.ndarray, dimensions: tuple[int, ...]) -> np.ndarray:
    if isinstance(images, np.ma.MaskedArray):
        raise UserError(
            "a masked array is no image.",
            rule="every pixel has a value.",
            remedy="fill it with the value of air: array.filled(-1000).",
        )
    images = np.asarray(images)
    wrong = images.ndim not in dimensions or images.dtype.kind not in "iuf"
    if wrong or not images.size:
        shapes = {2: "[h w]", 3: "[n h w]"}
        raise UserError(
            f"an array of {images.dtype}{list(images.shape)} is no image.",
            rule=f"numbers, {' or '.join(shapes[d] for d in dimensions)}.",
        )
    require_finite(images, "the array")
    return images


def load(
    path: str | PathLike,
    *,
    members: str = "all",
    flips: bool = False,
    postprocessing: str = "tuned",
) -> LungSegmenter:
    """Load a segmenter from a run folder, or from a bundle that `lungseg export` wrote.

    Args:
      path: the folder.
      members: "all", "last", "average", or steps such as "400,600".
      flips, postprocessing: see `LungSegmenter`.

    Raises:
      UserError: the folder is neither, has no such members, or is damaged.
    """
    return LungSegmenter(
        load_ensemble(path, members=members), flips=flips, postprocessing=postprocessing
    )
