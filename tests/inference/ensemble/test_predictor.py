"""The compiled ensemble is the loop over its members."""

import jax
import numpy as np
import pytest

from lungseg_jax.data.pairs import Slice
from lungseg_jax.data.preprocessing import image_to_network, to_slice
from lungseg_jax.inference.ensemble.predictor import (
    EnsemblePredictor,
    make_ensemble_predict,
    stack,
    zip_with_predictions,
)
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import init_variables

PREPROCESSING = {
    "preprocessing": "window",
    "image_size": 32,
    "window_hu": (-1000.0, 400.0),
}


@pytest.fixture(scope="module")
def model():
    return make_model("conv", filters=1)


@pytest.fixture(scope="module")
def members(model):
    return [init_variables(model, channels=1, seed=seed) for seed in range(3)]


@pytest.mark.parametrize("vectorize", [True, False])
def test_one_call_is_the_loop_over_members(model, members, vectorize):
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    together = make_ensemble_predict(model, vectorize=vectorize)(stack(members), images)
    assert together.shape == (3, 2, 32, 32)
    for member, one in zip(members, together, strict=True):
        alone = jax.nn.sigmoid(model.apply(member, images, train=False))
        np.testing.assert_allclose(one, alone, atol=1e-6)
    assert abs(together[0] - together[1]).max() > 1e-3  # the members do differ


def test_slices_of_any_size_and_number_come_back_in_order(model, members):
    ensemble = EnsemblePredictor(
        model, members, preprocessing=PREPROCESSING, batch_size=2
    )
    rng = np.random.default_rng(1)
    shapes = [(40, 40), (64, 30), (32, 32)]
    images = [rng.integers(-1000, 400, shape, np.int16) for shape in shapes]
    outputs = list(ensemble.probabilities(images))
    assert [p.shape for p in outputs] == [(3, *shape) for shape in shapes]
    for image, probabilities in zip(images, outputs, strict=True):
        inputs = image_to_network(image, **PREPROCESSING)[None]
        square = jax.nn.sigmoid(model.apply(members[2], inputs, train=False))[0]
        alone = to_slice(np.asarray(square), image.shape)
        np.testing.assert_allclose(probabilities[2], alone, atol=1e-5)


def test_images_are_taken_batch_by_batch(model, members):
    taken = []

    def images():
        for i in range(100):
            taken.append(i)
            yield np.zeros((32, 32), np.int16)

    ensemble = EnsemblePredictor(
        model, members, preprocessing=PREPROCESSING, batch_size=2
    )
    next(ensemble.probabilities(images()))
    assert taken == [0, 1]


@pytest.mark.parametrize("vectorize", [True, False])
def test_flips_are_the_mean_over_mirror_images(model, members, vectorize):
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    predict = make_ensemble_predict(model, vectorize=vectorize, flips=True)
    together = predict(stack(members), images)
    assert together.shape == (3, 2, 32, 32)
    for member, one in zip(members, together, strict=True):
        views = []
        for axes in ((), (1,), (2,), (1, 2)):
            seen = model.apply(member, np.flip(images, axes), train=False)
            views.append(np.flip(jax.nn.sigmoid(seen), axes))
        np.testing.assert_allclose(one, np.mean(views, axis=0), atol=1e-6)
    assert abs(views[0] - views[3]).max() > 1e-3  # the views do differ


def test_a_slice_alone_is_the_slice_in_a_batch(model, members):
    ensemble = EnsemblePredictor(
        model, members, preprocessing=PREPROCESSING, batch_size=4
    )
    rng = np.random.default_rng(2)
    images = [rng.integers(-1000, 400, (32, 32), np.int16) for _ in range(3)]
    in_batch = list(ensemble.probabilities(images))
    for image, expected in zip(images, in_batch, strict=True):
        (alone,) = ensemble.probabilities([image])
        np.testing.assert_allclose(alone, expected, atol=1e-6)


def test_answers_stay_with_their_slices(model, members):
    ensemble = EnsemblePredictor(
        model, members, preprocessing=PREPROCESSING, batch_size=2
    )
    rng = np.random.default_rng(3)
    slices = [
        Slice(str(i), rng.integers(-1000, 400, (32, 32), np.int16), None)
        for i in range(5)
    ]
    answered = list(
        zip_with_predictions(
            ensemble.probabilities, iter(slices), image_of=lambda one: one.image
        )
    )
    assert [one.name for one, _ in answered] == ["0", "1", "2", "3", "4"]
    for one, members_of_it in answered:
        (alone,) = ensemble.probabilities([one.image])
        np.testing.assert_allclose(members_of_it, alone, atol=1e-6)
