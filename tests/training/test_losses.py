"""Losses by hand: the logit ln 3 is a probability of 3/4, and -ln 3 one of 1/4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.training.losses import (
    LOSSES,
    MEDIAN_STEP,
    bce,
    bce_dice,
    damp_outliers,
    soft_dice,
    track_median,
)

LN2, LN3, LN4 = np.log([2.0, 3.0, 4.0])

# name: logits [1 1 2], masks [1 1 2], bce, soft_dice
BY_HAND = {
    # p = 1/2: every pixel costs ln 2. Dice: 1 - (2*0.5 + 1)/(1 + 1 + 1) = 1/3.
    "undecided": ([0.0, 0.0], [1.0, 0.0], LN2, 1 / 3),
    # p = 3/4, 1/4, both right: -ln 3/4. Dice: 1 - (2*0.75 + 1)/(1 + 1 + 1) = 1/6.
    "right": ([LN3, -LN3], [1.0, 0.0], LN4 - LN3, 1 / 6),
    # p = 1/4, 3/4, both wrong: -ln 1/4. Dice: 1 - (2*0.25 + 1)/3 = 1/2.
    "wrong": ([-LN3, LN3], [1.0, 0.0], LN4, 1 / 2),
    # p = 3/4 twice: (-ln 3/4 - ln 1/4)/2. Dice: 1 - (1.5 + 1)/(1.5 + 1 + 1) = 2/7.
    "too much": ([LN3, LN3], [1.0, 0.0], LN4 - LN3 / 2, 2 / 7),
    # An empty mask: -ln 3/4 twice. Dice: 1 - (0 + 1)/(0.5 + 0 + 1) = 1/3.
    "empty mask": ([-LN3, -LN3], [0.0, 0.0], LN4 - LN3, 1 / 3),
    # A full mask: Dice: 1 - (2*1.5 + 1)/(1.5 + 2 + 1) = 1/9.
    "full mask": ([LN3, LN3], [1.0, 1.0], LN4 - LN3, 1 / 9),
    # A soft mask: -(0.75 ln 0.75 + 0.25 ln 0.25) = ln 4 - 0.75 ln 3, and ln 2 for the
    # other. Dice: p = 3/4, 1/2, t = 3/4, 1/2: 1 - (2*(9/16 + 1/4) + 1)/(5/2 + 1) = 1/4.
    "soft mask": ([LN3, 0.0], [0.75, 0.5], (LN4 - 0.75 * LN3 + LN2) / 2, 1 / 4),
}


def one_row(values):
    return jnp.array(values, jnp.float32)[None, None]  # [1 1 w]


@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case):
    logits, masks, cross_entropy, dice = BY_HAND[case]
    arguments = one_row(logits), one_row(masks)
    np.testing.assert_allclose(bce(*arguments), [cross_entropy], rtol=1e-6)
    np.testing.assert_allclose(soft_dice(*arguments), [dice], rtol=1e-6)
    both = cross_entropy + dice
    np.testing.assert_allclose(bce_dice(*arguments), [both], rtol=1e-6)


def test_a_confident_empty_prediction_of_an_empty_mask_costs_nothing():
    logits, masks = jnp.full((1, 4, 4), -100.0), jnp.zeros((1, 4, 4))
    for loss in LOSSES.values():
        np.testing.assert_allclose(loss(logits, masks), [0.0], atol=1e-6)


def test_perfect_and_entirely_wrong_predictions():
    masks = jnp.array([[[1.0, 1.0], [0.0, 0.0]]])  # [1 2 2]
    logits = 200.0 * masks - 100.0
    np.testing.assert_allclose(bce_dice(logits, masks), [0.0], atol=1e-6)
    # Every pixel costs 100; Dice: 1 - (0 + 1)/(2 + 2 + 1) = 4/5.
    np.testing.assert_allclose(bce(-logits, masks), [100.0], rtol=1e-6)
    np.testing.assert_allclose(soft_dice(-logits, masks), [0.8], rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_each_image_has_its_own_loss(name):
    """Three images `[3 2 4]` of different loss: a mean over the batch would mix them."""
    logits = jnp.stack([jnp.full((2, 4), x) for x in (-LN3, 0.0, LN3)])
    losses = LOSSES[name](logits, jnp.ones((3, 2, 4)))
    assert losses.shape == (3,)
    expected = {
        "bce": [LN4, LN2, LN4 - LN3],
        # 8 pixels: 1 - (16p + 1)/(8p + 8 + 1) with p = 1/4, 1/2, 3/4
        "soft_dice": [6 / 11, 4 / 13, 2 / 15],
        "bce_dice": [LN4 + 6 / 11, LN2 + 4 / 13, LN4 - LN3 + 2 / 15],
    }
    np.testing.assert_allclose(losses, expected[name], rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_losses_are_float32_for_logits_of_any_dtype(name, dtype):
    """The logit 1 is exact in 8 bits; its sigmoid 0.7310586 and sums of it are not."""
    masks = jnp.zeros((2, 64, 64)).at[:, :32].set(1.0)
    losses = LOSSES[name](jnp.ones((2, 64, 64), dtype), masks)
    assert losses.dtype == jnp.float32
    p = 1 / (1 + np.exp(-1))
    cross_entropy = -(np.log(p) + np.log(1 - p)) / 2
    dice = 1 - (2 * 2048 * p + 1) / (4096 * p + 2048 + 1)
    expected = {
        "bce": cross_entropy,
        "soft_dice": dice,
        "bce_dice": cross_entropy + dice,
    }
    np.testing.assert_allclose(losses, [expected[name]] * 2, rtol=2e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("logit", [-1e30, -1e4, -100.0, 100.0, 1e4, 1e30])
@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_losses_are_finite_at_extreme_logits(name, logit, truth):
    masks = jnp.full((1, 2, 2), truth)

    def total(logits):
        return LOSSES[name](logits, masks).sum()

    value, gradient = jax.value_and_grad(total)(jnp.full((1, 2, 2), logit))
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_gradients_by_hand():
    """At p = 1/2: bce (p - t)/n per pixel; Dice by the quotient rule."""
    logits, masks = one_row([0.0, 0.0]), one_row([1.0, 0.0])
    bce_gradient = jax.grad(lambda x: bce(x, masks).sum())(logits)
    np.testing.assert_allclose(bce_gradient, one_row([-0.25, 0.25]), rtol=1e-6)
    # d/dp_i [1 - A/B], A = 2, B = 3: -(2 t_i B - A)/B^2 = -(4/9), +(2/9); dp/dx = 1/4.
    dice_gradient = jax.grad(lambda x: soft_dice(x, masks).sum())(logits)
    np.testing.assert_allclose(dice_gradient, one_row([-1 / 9, 1 / 18]), rtol=1e-6)


def test_outliers_are_damped_by_hand():
    """Knee 0.5: 0.2 is unchanged; 0.5 e becomes 0.5 (1 + 1), with 1/e of the gradient."""
    losses = jnp.array([0.2, 0.5, 0.5 * np.e])
    np.testing.assert_allclose(damp_outliers(losses, 0.5), [0.2, 0.5, 1.0], rtol=1e-6)
    gradient = jax.grad(lambda x: damp_outliers(x, 0.5).sum())(losses)
    np.testing.assert_allclose(gradient, [1, 1, 1 / np.e], rtol=1e-6)


def test_a_zero_loss_has_a_gradient_and_a_zero_knee_disables_damping():
    losses = jnp.array([0.0, 3.0])
    gradient = jax.grad(lambda x: damp_outliers(x, 0.5).sum())(losses)
    np.testing.assert_allclose(gradient, [1, 1 / 6], rtol=1e-6)
    np.testing.assert_array_equal(damp_outliers(losses, 0.0), losses)


# --- the running median ---


def test_the_first_losses_set_the_median_and_the_next_move_it_by_hand():
    median = track_median(jnp.float32(0), jnp.array([0.1, 0.5, 9.0]))
    assert float(median) == pytest.approx(0.5)
    # Three of four above, one below: half a step up.
    up = track_median(median, jnp.array([0.6, 0.7, 1e6, 0.1]))
    assert float(up) == pytest.approx(0.5 * np.exp(MEDIAN_STEP / 2))
    # As many above as below: it rests.
    assert float(track_median(median, jnp.array([0.4, 7.0]))) == pytest.approx(0.5)


@pytest.mark.parametrize("batch", [1, 8])
def test_the_running_median_finds_that_of_a_skewed_distribution(batch):
    """Log-normal around 0.05, a tenth of it wrong labels with a loss of 3."""
    rng = np.random.default_rng(0)
    losses = np.exp(rng.normal(np.log(0.05), 0.7, (2000, batch)))
    losses[rng.random(losses.shape) < 0.1] = 3.0
    medians = np.asarray(
        jax.lax.scan(
            lambda m, x: (track_median(m, x),) * 2,
            jnp.float32(1.0),
            jnp.asarray(losses, jnp.float32),
        )[1]
    )
    expected = np.median(losses)
    assert np.median(medians[200:]) == pytest.approx(expected, rel=0.1)
    assert abs(np.log(medians[200:] / expected)).max() < (1.0 if batch == 1 else 0.4)
