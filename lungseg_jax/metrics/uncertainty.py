"""Uncertainty of pixels and slices, and measures of how well it predicts errors."""

from typing import Any

import numpy as np

TINY = np.finfo(np.float32).tiny
# Which slices are flagged for review. To catch all of low IoU, one with a wrong label,
# confident and of low IoU, would flag everything.
CATCH = 0.9  # share of the slices of low IoU
BUDGET = 0.2  # share of the other slices, at most


def entropy(probability: np.ndarray) -> np.ndarray:
    """Return the entropy of a Bernoulli distribution, in bits.

    Args:
      probability: any shape, in 0 to 1.

    Returns:
      float32 of the same shape: 0 where p is 0 or 1, and 1 where p is 0.5.
    """
    p = np.asarray(probability, np.float32)
    bits = _times_log2(p)
    bits += _times_log2(1 - p)
    return np.abs(bits)  # avoids -0.0


def mutual_information(members: np.ndarray) -> np.ndarray:
    """Return the part of the entropy that is due to disagreement of the members.

    It is the entropy of the mean minus the mean of the entropies; 0 for one member. Source:
    Houlsby, Huszar, Ghahramani & Lengyel 2011, arXiv:1112.5745, equation 2; members are
    taken as posterior samples as in Lakshminarayanan, Pritzel & Blundell 2017,
    arXiv:1612.01474.

    Args:
      members: probabilities `[m h w]`.

    Returns:
      `[h w]`, in bits.
    """
    if len(members) == 1:
        return np.zeros_like(members[0])
    # np.mean over a leading axis takes four times as long as a sum of arrays.
    information = entropy(sum(members) / len(members))
    information -= sum(map(entropy, members)) / len(members)
    return np.maximum(information, 0)  # rounding errors are negative


def expected_iou(probability: np.ndarray, mask: np.ndarray) -> float:
    """Estimate the IoU of a mask from the probabilities, without a label.

    If each pixel is lung with its probability, the intersection has sum(p in the mask)
    pixels on average and the union |mask| + sum(p outside). Their ratio is a first order
    estimate of the expected IoU. For an empty mask this ratio would be 0 even where the
    slice hardly has any lung, so the estimate is 1 - max(p): the probability that there is
    no lung, judged by the most likely pixel.

    Args:
      probability: `[h w]`, calibrated.
      mask: `[h w]`, boolean.

    Returns:
      The expected IoU, from 0 to 1.
    """
    if not mask.any():
        return float(1 - probability.max())
    intersection = probability[mask].sum(dtype=np.float64)
    outside = probability.sum(dtype=np.float64) - intersection
    return float(intersection / (np.count_nonzero(mask) + max(outside, 0.0)))


def disagreement(masks: np.ndarray) -> float:
    """Return one minus the intersection over union of the masks of all members.

    It is the share of the pixels called lung by some member on which members disagree; 0
    if no member finds lung.

    Args:
      masks: `[m h w]`, boolean.
    """
    if len(masks) == 1:
        return 0.0
    union = np.count_nonzero(masks.any(axis=0))
    return float(1 - np.count_nonzero(masks.all(axis=0)) / union) if union else 0.0


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """Return the area under the receiver operating characteristic.

    It is the probability that a positive has a higher score than a negative, with ties
    counted half, computed by the Mann-Whitney statistic (Hanley & McNeil 1982).

    Args:
      score: `[n]`.
      positive: `[n]`, boolean.

    Returns:
      The area; None if there are no positives or no negatives.
    """
    positive = np.asarray(positive, bool)
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return None
    # Mean ranks as `scipy.stats.rankdata` gives them, whose import takes a second.
    ordered = np.sort(score)
    below, up_to = (np.searchsorted(ordered, score, side) for side in ("left", "right"))
    ranks = ((below + up_to + 1) / 2)[positive].sum()
    return float((ranks - n * (n + 1) / 2) / (n * m))


def risk_coverage(confidence: np.ndarray, loss: np.ndarray) -> dict[str, Any]:
    """Return the mean loss of the most confident slices, by the share that is kept.

    Source: Geifman & El-Yaniv 2017, arXiv:1705.08500, section 2; the area under the curve
    (AURC) as in Geifman, Uziel & El-Yaniv 2019, arXiv:1805.08206.

    Args:
      confidence: `[n]`, n >= 1; slices of equal confidence share their mean loss.
      loss: `[n]`.

    Returns:
      "coverage" and "risk", lists of n numbers, and "aurc", the mean of "risk".
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
) -> dict[str, Any]:
    """Choose the confidence below which slices are flagged for review.

    It is the smallest threshold that catches at least CATCH of the slices whose IoU is
    below `low`, as long as it flags at most BUDGET of the others. If no slice has a low
    IoU, it is the 5th percentile of the confidence.

    Args:
      confidence: of the validation slices, `[n]`, n >= 1.
      iou: `[n]`.
      low: slices below it should be caught.

    Returns:
      "threshold"; "flagged", the share of slices below it; "n_low", the number of slices
      with a low IoU, and "caught", the number of those below the threshold; "rule", a
      sentence that explains how the threshold was chosen.
    """
    confidence, iou = np.asarray(confidence, float), np.asarray(iou, float)
    is_low = iou < low
    threshold, rule = _threshold_and_rule(confidence, is_low, low)
    flagged = confidence < threshold
    return {
        "threshold": threshold,
        "flagged": float(flagged.mean()),
        "n_low": int(is_low.sum()),
        "caught": int((flagged & is_low).sum()),
        "rule": rule,
    }


def _times_log2(p: np.ndarray) -> np.ndarray:
    """Return p log2(p), 0 where p is 0. SciPy's `xlogy` takes five times as long."""
    product = np.log2(p + TINY)
    product *= p
    return product


def _threshold_and_rule(
    confidence: np.ndarray, is_low: np.ndarray, low: float
) -> tuple[float, str]:
    n_low = int(is_low.sum())
    if not n_low:
        return float(np.percentile(confidence, 5)), (
            "The 5th percentile of the confidence, since no validation slice had an IoU "
            f"below {low:g}."
        )
    needed = int(np.ceil(CATCH * n_low))
    last = np.sort(confidence[is_low])[needed - 1]
    threshold = float(np.nextafter(last, np.inf))  # it is itself below
    others = confidence[~is_low]
    if (others < threshold).sum() <= BUDGET * len(others):
        return threshold, (
            f"The smallest threshold that catches {needed} of the {n_low} validation "
            f"slices with an IoU below {low:g}."
        )
    allowed = int(BUDGET * len(others))
    return float(np.sort(others)[allowed]), (
        f"The largest threshold that flags at most {BUDGET:.0%} of the validation "
        f"slices with an IoU of at least {low:g}: to catch {needed} of the {n_low} "
        "others, more would be flagged."
    )
