"""Calibration of the probability of lung, and its correction by a temperature.

A calibrated probability of 0.8 is right in 8 of 10 cases. Everything is computed from a
histogram of the logit in fine bins. Histograms add up over slices, so any number of
slices needs the same memory.
"""

from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.special import expit

# Bins of the logit from -MAX_LOGIT to MAX_LOGIT; the outermost collect the rest. A bin is
# 0.0012 wide: at a temperature of 1, using its middle changes the log-likelihood of a pixel
# by at most 0.0007 and its probability by at most 0.0002.
BINS, MAX_LOGIT = 32768, 20.0
_WIDTH = 2 * MAX_LOGIT / BINS
_LOGITS = -MAX_LOGIT + _WIDTH * (np.arange(BINS) + 0.5)  # the middle of each bin
CONFIDENCE_BINS = 15  # of the probability of lung, from 0 to 1
BAND = 5  # pixels on each side of a boundary
LARGEST_LOSS = 3.0  # of a slice, in medians


def logit_histogram(
    probability: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None
) -> np.ndarray:
    """Count pixels by logit and truth.

    Args:
      probability: `[h w]`.
      truth: `[h w]`, boolean.
      where: `[h w]`, boolean; the pixels to count, all by default.

    Returns:
      int64 `[BINS 2]`; column 1 is lung.
    """
    if where is not None:
        probability, truth = probability[where], truth[where]
    position = (_logit(probability) + MAX_LOGIT) / _WIDTH
    column = np.clip(position, 0, BINS - 1).astype(np.int64)
    flat = (2 * column + truth).ravel()
    return np.bincount(flat, minlength=2 * BINS).reshape(BINS, 2)


def boundary_band(truth: np.ndarray) -> np.ndarray:
    """Return the band of pixels within `BAND` pixels of a mask's boundary.

    It covers both sides; the distance is the Euclidean one to the nearest pixel of the
    other side.

    Returns:
      `[h w]` boolean; all False if the mask is empty or full.
    """
    if truth.all() or not truth.any():
        return np.zeros_like(truth)
    inside, outside = distance_transform_edt(truth), distance_transform_edt(~truth)
    return np.where(truth, inside, outside) <= BAND


def outlier_weights(losses: np.ndarray) -> np.ndarray:
    """Return weights that bound the influence of each slice on a fit.

    A slice with a wrong label can have the loss of a hundred others, and a fit that follows
    it is wrong for all of them. The weights limit each loss to `LARGEST_LOSS` medians.

    Args:
      losses: `[n]`, the mean negative log-likelihood of each slice.

    Returns:
      `[n]`, above 0 and at most 1.
    """
    losses = np.asarray(losses, float)
    limit = LARGEST_LOSS * np.median(losses)
    return np.divide(limit, losses, out=np.ones_like(losses), where=losses > limit)


def fit_temperature(counts: np.ndarray) -> float:
    """Fit the temperature T that maximizes the likelihood of sigmoid(logit / T).

    T is between 0.05 and 20; above 1, the network was overconfident. Probabilities of 0
    and 1 count as logits of -20 and 20. Source: Guo, Pleiss, Sun & Weinberger 2017,
    arXiv:1706.04599, section 4.2.

    Args:
      counts: of `logit_histogram`, or a weighted sum of several.

    Returns:
      The temperature; 1.0 if there is no lung or no background.
    """
    from scipy.optimize import minimize_scalar  # 0.6 s, and predictions never fit

    if not counts.sum(axis=0).all():  # all lung or none: the likelihood has no maximum
        return 1.0
    best = minimize_scalar(
        lambda log_t: calibration_scores(counts, float(np.exp(log_t)))["nll"],
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(best.x))


def apply_temperature(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Return sigmoid(logit / temperature), float32 of the same shape.

    This keeps the order of the probabilities, and the values 0, 0.5 and 1.
    """
    probability = np.asarray(probability, np.float32)
    if temperature == 1.0:
        return probability
    odds = _logit(probability)
    odds /= np.float32(-temperature)
    with np.errstate(over="ignore"):  # exp of a large number is infinite: 1 / inf is 0
        np.exp(odds, out=odds)
    odds += 1
    return 1 / odds


def reliability_diagram(
    counts: np.ndarray, temperature: float = 1.0
) -> dict[str, list]:
    """Return the points of a reliability diagram with `CONFIDENCE_BINS` equal bins.

    Args:
      counts: of `logit_histogram`.
      temperature: applied first.

    Returns:
      "confidence", the mean probability in each bin; "frequency", the share of its pixels
      that is lung, both None for an empty bin; "count", the number of its pixels.
    """
    p, column = _binned(temperature)
    pixels = counts.sum(axis=1)
    count = np.bincount(column, weights=pixels, minlength=CONFIDENCE_BINS)
    lung = np.bincount(column, weights=counts[:, 1], minlength=CONFIDENCE_BINS)
    total = np.bincount(column, weights=p * pixels, minlength=CONFIDENCE_BINS)
    return {
        "confidence": [_share(a, n) for a, n in zip(total, count, strict=True)],
        "frequency": [_share(a, n) for a, n in zip(lung, count, strict=True)],
        "count": count.astype(int).tolist(),
    }


def calibration_scores(counts: np.ndarray, temperature: float = 1.0) -> dict[str, Any]:
    """Return errors of the probability of lung, where 0 is perfect.

    Args:
      counts: of `logit_histogram`.
      temperature: applied first.

    Returns:
      "n", the number of pixels; "ece", the expected calibration error, which is the mean
      difference between confidence and frequency over `CONFIDENCE_BINS` equal bins
      (Naeini, Cooper & Hauskrecht 2015), for the probability of lung rather than of the
      more likely class; "brier", the mean squared error (Brier 1950); "nll", the mean
      negative log-likelihood in nats. The errors are None for an empty histogram.
    """
    n = int(counts.sum())
    if not n:
        return {"n": 0, "ece": None, "brier": None, "nll": None}
    p, column = _binned(temperature)
    pixels = counts.sum(axis=1)
    excess = np.bincount(
        column, weights=p * pixels - counts[:, 1], minlength=CONFIDENCE_BINS
    )
    squares = counts[:, 1] * (1 - p) ** 2 + counts[:, 0] * p**2
    # -log sigmoid(z), stable for large z.
    z = _LOGITS / temperature
    nll = counts[:, 1] * np.logaddexp(0, -z) + counts[:, 0] * np.logaddexp(0, z)
    return {
        "n": n,
        "ece": float(np.abs(excess).sum() / n),
        "brier": float(squares.sum() / n),
        "nll": float(nll.sum() / n),
    }


def _binned(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of each fine bin, and the coarse bin that contains it."""
    p = expit(_LOGITS / temperature)
    return p, np.minimum((p * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)


def _logit(probability: np.ndarray) -> np.ndarray:
    p = np.asarray(probability, np.float32)
    with np.errstate(divide="ignore"):  # 0 and 1 have infinite logits
        return np.log(p / (1 - p))


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
