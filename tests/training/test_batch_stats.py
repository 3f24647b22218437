"""Batch statistics over a training set, against the moments of a linear map."""

import jax
import numpy as np
import pytest

from lungseg_jax.models import make_model
from lungseg_jax.models.variables import init_variables
from lungseg_jax.runtime.sharing import own_share
from lungseg_jax.training.batch_stats import (
    make_precise_batch_stats,
    pool_batch_stats,
    pool_shares,
)


def test_first_layer_statistics_are_those_of_the_whole_set():
    """The first norm sees a linear map of the input, whose moments are known."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.1, (6, 32, 32, 1)).astype(np.float32)
    images[:, 8:24, 6:20] += 0.8
    model = make_model("conv", filters=2, levels=2)
    variables = init_variables(model, channels=1, seed=0)
    batches = np.array([[0, 1], [2, 3], [4, 5]])
    stats = make_precise_batch_stats(model)(variables, images, batches)
    response = jax.lax.conv_general_dilated(
        images,
        variables["params"]["down_1"]["layer"]["conv"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    norm = stats["down_1"]["layer"]["norm"]
    np.testing.assert_allclose(norm["mean"], response.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(norm["var"], response.var((0, 1, 2)), rtol=1e-3)
    # The running statistics, still at their initial values, are far from them.
    running = variables["batch_stats"]["down_1"]["layer"]["norm"]
    assert (running["var"] == 1).all() and (abs(norm["var"] - 1) > 0.1).all()


def test_images_are_normalized_as_the_network_sees_them():
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (4, 32, 32, 1)).astype(np.float32)
    model = make_model("conv", filters=1, levels=2)
    variables = init_variables(model, channels=1, seed=0)
    batches = np.arange(4).reshape(2, 2)
    normalizing = make_precise_batch_stats(model, normalize=lambda x: x / 1400)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        normalizing(variables, images * 1400, batches),
        make_precise_batch_stats(model)(variables, images, batches),
    )


def test_parts_of_a_set_are_pooled():
    """One part is its own estimate, bit for bit; several are that of all batches."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (6, 32, 32, 1)).astype(np.float32)
    images[:2] += 5  # the means of the batches differ, which the variance includes
    model = make_model("conv", filters=1, levels=2)
    variables = init_variables(model, channels=1, seed=0)
    estimate = make_precise_batch_stats(model)
    batches = np.arange(6).reshape(3, 2)
    together = estimate(variables, images, batches)
    same = pool_batch_stats(estimate, variables, [(images, batches)])
    jax.tree.map(np.testing.assert_array_equal, same, together)
    parts = ((images[batch], np.array([[0, 1]])) for batch in batches)
    pooled = pool_batch_stats(estimate, variables, parts)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        pooled,
        together,
    )


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batches(as_processes, processes):
    """The fourth process of four has no batch of its own."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (6, 32, 32, 1)).astype(np.float32)
    images[:2] += 5
    model = make_model("conv", filters=1, levels=2)
    variables = init_variables(model, channels=1, seed=0)
    estimate = make_precise_batch_stats(model)
    batches = np.arange(6).reshape(3, 2)
    together = estimate(variables, images, batches)

    def work():
        own, stats = own_share(batches), variables["batch_stats"]
        if len(own):
            stats = estimate(variables, images, own)
        return pool_shares(stats, len(own))

    for pooled in as_processes(processes, work):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
            pooled,
            together,
        )


def test_variances_are_never_negative():
    """E[x^2] - E[x]^2 of values near 100 has an error larger than their variance."""
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(64, 32, 32, 1)).astype(np.float32)
    model = make_model("conv", filters=2, levels=2)
    variables = init_variables(model, channels=1, seed=0)
    conv = variables["params"]["down_1"]["layer"]["conv"]
    conv["bias"], conv["kernel"] = conv["bias"] + 100, conv["kernel"] * 1e-3
    batches = np.arange(64).reshape(8, 8)
    stats = make_precise_batch_stats(model)(variables, images, batches)
    assert (stats["down_1"]["layer"]["norm"]["var"] >= 0).all()
    estimated = {"params": variables["params"], "batch_stats": stats}
    assert np.isfinite(model.apply(estimated, images[:1], train=False)).all()
