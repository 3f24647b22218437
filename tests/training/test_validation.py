"""Validation during training: counts and losses by hand."""

import numpy as np
import pytest

from lungseg_jax.training.losses import bce
from lungseg_jax.training.validation import make_eval_step


def test_eval_step_counts_by_hand():
    class Identity:
        """A "network" whose logits are its input."""

        def apply(self, variables, images, train):
            return images[..., 0]

    step = make_eval_step(Identity(), loss=bce, threshold=0.5)
    logits = np.array([[[5.0, 5.0], [-5.0, -5.0]]], np.float32)
    masks = np.array([[[1.0, 0.2], [0.5, 0.0]]], np.float32)  # 0.5 counts as lung
    losses, counts = step({}, logits[..., None], masks)
    assert counts.tolist() == [[1, 1, 1]]  # tp, fp, fn
    # log(1+e^-5) twice; the others by p log p: 5(1-0.2) and 5*0.5 above it.
    assert losses[0] == pytest.approx(np.log1p(np.exp(-5)) + (4.0 + 2.5) / 4, rel=1e-5)
    # The threshold is of probabilities: a logit of 0.5 is one of 0.62.
    step = make_eval_step(Identity(), loss=bce, threshold=0.7)
    _, counts = step({}, np.float32([[[[0.5], [1.0]]]]), np.ones((1, 1, 2), np.float32))
    assert counts.tolist() == [[1, 0, 1]]
