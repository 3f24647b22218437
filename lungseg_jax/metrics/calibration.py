"""Whether a probability of 0.8 is right in 8 of 10 cases, and what to do if it is not.

All is computed from a histogram of the logit in fine bins, which adds up over slices: any
number of them needs the same memory.
"""

from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.optimize import minimize_scalar
from scipy.special import expit

# Of the logit, from -LARGEST to LARGEST; the ends collect the rest. A bin is 0.0012 wide:
# taking its middle changes no likelihood by more than 0.0007 and no p by more than 0.0002
# at a temperature of 1.
BINS, LARGEST = 32768, 20.0
_WIDTH = 2 * LARGEST / BINS
_LOGITS = -LARGEST + _WIDTH * (np.arange(BINS) + 0.5)  # the middle of each bin


def histogram(
    probability: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None
) -> np.ndarray:
    """Pixels by logit and truth, int64 `[BINS 2]`; column 1 is lung.

    Args:
      probability: `[h w]`.
      truth: `[h w]`, boolean.
      where: `[h w]`, boolean: these pixels alone.
    """
    if where is not None:
        probability, truth = probability[where], truth[where]
    position = (_logit(probability) + LARGEST) / _WIDTH
    column = np.clip(position, 0, BINS - 1).astype(np.int64)
    flat = (2 * column + truth).ravel()
    return np.bincount(flat, minlength=2 * BINS).reshape(BINS, 2)


def boundary_band(truth: np.ndarray, width: int = 5) -> np.ndarray:
    """The pixels within `width` pixels of the boundary of a mask, `[h w]` boolean.

    On either side; by the Euclidean distance to the nearest pixel of the other side. All
    False where the mask is empty or full.
    """
    if truth.all() or not truth.any():
        return np.zeros_like(truth)
    inside, outside = distance_transform_edt(truth), distance_transform_edt(~truth)
    return np.where(truth, inside, outside) <= width


def outlier_weights(losses: np.ndarray, most: float = 3.0) -> np.ndarray:
    """Weights of slices for a fit, so that none counts for much more than the others.

    One whose label is plainly wrong has a loss of a hundred others, and a fit that follows
    it is wrong for all of them: a loss above `most` times the median counts as that.

    Args:
      losses: `[n]`, the mean negative log-likelihood of each slice.
      most: at least 1.

    Returns:
      `[n]`, above 0 and at most 1.
    """
    losses = np.asarray(losses, float)
    limit = most * np.median(losses)
    return np.divide(limit, losses, out=np.ones_like(losses), where=losses > limit)


def fit_temperature(found: np.ndarray) -> float:
    """The T that makes sigmoid(logit / T) most likely, between 0.05 and 20.

    Above 1 the network was too sure. Probabilities of 0 and 1 count as logits of 20.
    Source: Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599, section 4.2.

    Args:
      found: of `histogram`, or a sum of these, which may be weighted; 1.0 where one of
        lung and background is missing.
    """
    if not found.sum(axis=0).all():  # all lung or none: any certainty is right
        return 1.0
    best = minimize_scalar(
        lambda log_t: calibration_scores(found, float(np.exp(log_t)))["nll"],
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(best.x))


def apply_temperature(probability: np.ndarray, temperature: float) -> np.ndarray:
    """sigmoid(logit / temperature), float32 of the same shape.

    The order of the probabilities stays, and so do 0, 0.5 and 1.
    """
    probability = np.asarray(probability, np.float32)
    if temperature == 1.0:
        return probability
    return expit(_logit(probability) / np.float32(temperature))


def reliability(
    found: np.ndarray, temperature: float = 1.0, bins: int = 15
) -> dict[str, list]:
    """Of equal bins of the probability, what is shown in a reliability diagram.

    Args:
      found: of `histogram`.
      temperature: applied first.
      bins: of the probability of lung, from 0 to 1.

    Returns:
      "confidence", the mean probability in each bin; "frequency", the share that is lung;
      "count", its pixels. None where a bin is empty.
    """
    p, column = _binned(temperature, bins)
    pixels = found.sum(axis=1)
    count = np.bincount(column, weights=pixels, minlength=bins)
    lung = np.bincount(column, weights=found[:, 1], minlength=bins)
    total = np.bincount(column, weights=p * pixels, minlength=bins)
    return {
        "confidence": [_share(a, n) for a, n in zip(total, count, strict=True)],
        "frequency": [_share(a, n) for a, n in zip(lung, count, strict=True)],
        "count": count.astype(int).tolist(),
    }


def calibration_scores(
    found: np.ndarray, temperature: float = 1.0, bins: int = 15
) -> dict[str, Any]:
    """Errors of the probability of lung, 0 at best; None for an empty histogram.

    Args:
      found: of `histogram`.
      temperature: applied first.
      bins: of the expected calibration error.

    Returns:
      "n" pixels; "ece", the mean distance of confidence and frequency over equal bins
      (Naeini, Cooper & Hauskrecht 2015), of the probability of lung and not of the more
      likely class; "brier", the mean squared error (Brier 1950); "nll", the mean negative
      log-likelihood in nats.
    """
    n = int(found.sum())
    if not n:
        return {"n": 0, "ece": None, "brier": None, "nll": None}
    p, column = _binned(temperature, bins)
    pixels = found.sum(axis=1)
    excess = np.bincount(column, weights=p * pixels - found[:, 1], minlength=bins)
    squares = found[:, 1] * (1 - p) ** 2 + found[:, 0] * p**2
    # log sigmoid(z) without a 0 in it.
    z = _LOGITS / temperature
    nll = found[:, 1] * np.logaddexp(0, -z) + found[:, 0] * np.logaddexp(0, z)
    return {
        "n": n,
        "ece": float(np.abs(excess).sum() / n),
        "brier": float(squares.sum() / n),
        "nll": float(nll.sum() / n),
    }


def _binned(temperature: float, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each fine bin, and the coarse bin it is in."""
    p = expit(_LOGITS / temperature)
    return p, np.minimum((p * bins).astype(int), bins - 1)


def _logit(probability: np.ndarray) -> np.ndarray:
    p = np.asarray(probability, np.float32)
    with np.errstate(divide="ignore"):  # 0 and 1 have infinite logits
        return np.log(p) - np.log1p(-p)


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
