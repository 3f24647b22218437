"""Confidence in the mask of a slice: its scores, and reasons for review."""

import dataclasses
from collections.abc import Iterable

from lungseg_jax.inference import review
from lungseg_jax.inference.segmentation import Segmentation


@dataclasses.dataclass(frozen=True)
class Confidence:
    """How far to trust a mask; the fields are columns of a `PredictionTable`.

    Attributes:
      expected_iou, review, disagreement: those of `Segmentation`; a reason of the volume
        also sets `review`.
      uncertainty_bits, mutual_information_bits: means over the slice.
      reasons: why to review the slice; constants of `review`.
    """

    expected_iou: float
    review: bool | None
    disagreement: float
    uncertainty_bits: float
    mutual_information_bits: float
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, segmentation: Segmentation) -> "Confidence":
        """Summarize the segmentation of one slice."""
        reason = review.reason_of(segmentation.disagreement)
        return cls(
            expected_iou=segmentation.expected_iou,
            review=segmentation.review,
            disagreement=segmentation.disagreement,
            uncertainty_bits=float(segmentation.uncertainty.mean()),
            mutual_information_bits=float(segmentation.mutual_information.mean()),
            reasons=(reason,) if segmentation.review else (),
        )

    def with_reasons(self, reasons: Iterable[str]) -> "Confidence":
        """Return the same with more reasons, if any, to review the slice."""
        reasons = (*self.reasons, *reasons)
        to_review = bool(reasons) or self.review
        return dataclasses.replace(self, review=to_review, reasons=reasons)
