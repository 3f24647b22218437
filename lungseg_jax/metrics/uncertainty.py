"""How sure an ensemble is: of a pixel, of a slice, and whether that can be relied on."""

from typing import Any

import numpy as np
from scipy.special import xlogy
from scipy.stats import rankdata


def entropy(probability: np.ndarray) -> np.ndarray:
    """Of the Bernoulli distribution, in bits: 0 where p is 0 or 1, 1 where it is 0.5.

    Args:
      probability: any shape, in 0 to 1.

    Returns:
      float32 of the same shape.
    """
    p = np.asarray(probability, np.float32)
    q = np.float32(1) - p
    return np.abs(xlogy(p, p) + xlogy(q, q)) / np.float32(np.log(2))  # no -0.0


def mutual_information(members: np.ndarray) -> np.ndarray:
    """The part of the entropy that is disagreement of the members, `[h w]` in bits.

    The entropy of the mean less the mean of the entropies; 0 for one member. Source:
    Houlsby, Huszar, Ghahramani & Lengyel 2011, arXiv:1112.5745, equation 2; members stand
    for the posterior as in Lakshminarayanan, Pritzel & Blundell 2017, arXiv:1612.01474.

    Args:
      members: probabilities `[m h w]`.
    """
    information = entropy(members.mean(axis=0)) - entropy(members).mean(axis=0)
    return np.maximum(information, 0)  # of rounding


def expected_iou(probability: np.ndarray, mask: np.ndarray) -> float:
    """The IoU that the probabilities promise for a mask: of expected pixels, in 0 to 1.

    Were each pixel lung with its probability, the intersection has sum(p in the mask)
    pixels on average and the union |mask| + sum(p outside); this is their ratio, a first
    order estimate of the expected ratio. For an empty mask it is the probability that
    there is no lung at all, as if the surest pixel spoke for all: 1 - max(p). (The ratio
    would be 0 for any doubt at all; and a blank slice is right to be empty.)

    Args:
      probability: `[h w]`, calibrated.
      mask: `[h w]`, boolean.
    """
    if not mask.any():
        return float(1 - probability.max())
    intersection = probability[mask].sum(dtype=np.float64)
    outside = probability.sum(dtype=np.float64) - intersection
    return float(intersection / (mask.sum() + max(outside, 0.0)))


def disagreement(masks: np.ndarray) -> float:
    """Share of the pixels that any member calls lung and not all do, of masks `[m h w]`.

    One minus the intersection over union of all members; 0 where none sees lung.
    """
    union = masks.any(axis=0).sum()
    return float(1 - masks.all(axis=0).sum() / union) if union else 0.0


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """The chance that a positive has a higher score than a negative, ties a half.

    The area under the receiver operating characteristic, by the Mann-Whitney statistic
    (Hanley & McNeil 1982); None where one of the two is missing.

    Args:
      score: `[n]`.
      positive: `[n]`, boolean.
    """
    positive = np.asarray(positive, bool)
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return None
    ranks = rankdata(score)[positive].sum()
    return float((ranks - n * (n + 1) / 2) / (n * m))


def risk_coverage(confidence: np.ndarray, loss: np.ndarray) -> dict[str, Any]:
    """The mean loss of the slices that are kept, where the surest are kept first.

    Source: Geifman & El-Yaniv 2017, arXiv:1705.08500, section 2; the area under the curve
    (AURC) as in Geifman, Uziel & El-Yaniv 2019, arXiv:1805.08206.

    Args:
      confidence: `[n]`, n >= 1; slices of equal confidence share their mean loss.
      loss: `[n]`.

    Returns:
      "coverage" and "risk", a list of n each, and "aurc", the mean of "risk".
    """
    confidence, loss = np.asarray(confidence, float), np.asarray(loss, float)
    _, tied = np.unique(-confidence, return_inverse=True)
    shared = np.bincount(tied, weights=loss) / np.bincount(tied)
    kept = np.arange(1, len(loss) + 1)
    risk = np.cumsum(shared[np.sort(tied)]) / kept
    return {
        "coverage": (kept / len(loss)).tolist(),
        "risk": risk.tolist(),
        "aurc": float(risk.mean()),
    }


def review_threshold(
    confidence: np.ndarray,
    iou: np.ndarray,
    *,
    low: float = 0.95,
    catch: float = 0.9,
    budget: float = 0.2,
) -> dict[str, Any]:
    """Below which confidence a slice is to be looked at; chosen on validation slices.

    The smallest limit that catches at least `catch` of the slices whose IoU is below
    `low`, but none that flags more than `budget` of all: a slice that is low for its wrong
    label would have everything flagged. Where there are no low ones, the 5th percentile of
    the confidence: what is less sure than nearly all that was seen is looked at.

    Args:
      confidence: `[n]`, n >= 1.
      iou: `[n]`.
      low: a slice below it should be found.
      catch: share of these, above 0 and at most 1.
      budget: share of all slices that may be flagged.

    Returns:
      "threshold"; "flagged", the share of slices below it; "n_low" and "caught",
      slices; "rule", a sentence that says how the threshold was chosen.
    """
    confidence, iou = np.asarray(confidence, float), np.asarray(iou, float)
    is_low = iou < low
    n_low = int(is_low.sum())
    if n_low:
        needed = int(np.ceil(catch * n_low - 1e-9))  # 0.55 * 100 is above 55
        last = np.sort(confidence[is_low])[needed - 1]
        threshold = float(np.nextafter(last, np.inf))  # it is itself below
        rule = (
            f"The smallest threshold that catches {needed} of the {n_low} validation "
            f"slices with an IoU below {low:g}."
        )
        if (confidence < threshold).mean() > budget:
            threshold = float(np.quantile(confidence, budget, method="lower"))
            rule = (
                f"The largest threshold that flags at most {budget:.0%} of the validation "
                f"slices: to catch {needed} of the {n_low} with an IoU below {low:g} more "
                "would be flagged."
            )
    else:
        threshold = float(np.percentile(confidence, 5))
        rule = (
            "The 5th percentile of the confidence, since no validation slice had an IoU "
            f"below {low:g}."
        )
    flagged = confidence < threshold
    return {
        "threshold": threshold,
        "flagged": float(flagged.mean()),
        "n_low": n_low,
        "caught": int((flagged & is_low).sum()),
        "rule": rule,
    }
