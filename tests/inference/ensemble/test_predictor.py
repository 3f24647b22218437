"""The compiled ensemble agrees with a loop over its members."""

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
from lungseg_jax.runtime.errors import UserError

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


def test_a_device_without_memory_is_a_plain_error(model, members, monkeypatch):
    predictor = EnsemblePredictor(model, members, preprocessing=PREPROCESSING)

    def fail(*args):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 8796093022208 bytes."
        )

    monkeypatch.setattr(predictor, "_predict", fail)
    with pytest.raises(UserError, match="8192.00 GiB were asked for") as e:
        next(predictor.probabilities([np.zeros((32, 32), np.int16)]))
    assert "--members=last" in e.value.remedy


def test_predict_equals_a_loop_over_members(model, members):
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    outputs = make_ensemble_predict(model)(stack(members), images)
    assert outputs.shape == (3, 2, 32, 32)
    for member, output in zip(members, outputs, strict=True):
        expected = jax.nn.sigmoid(model.apply(member, images, train=False))
        np.testing.assert_allclose(output, expected, atol=1e-6)
    assert abs(outputs[0] - outputs[1]).max() > 1e-3  # the members differ


def test_yields_slices_of_any_size_and_number_in_order(model, members):
    predictor = EnsemblePredictor(
        model, members, preprocessing=PREPROCESSING, batch_size=2
    )
    rng = np.random.default_rng(1)
    shapes = [(40, 40), (64, 30), (32, 32)]
    images = [rng.integers(-1000, 400, shape, np.int16) for shape in shapes]
    outputs = list(predictor.probabilities(images))
    assert [p.shape for p in outputs] == [(3, *shape) for shape in shapes]
    for image, probabilities in zip(images, outputs, strict=True):
        inputs = image_to_network(image, **PREPROCESSING)[None]
        square = jax.nn.sigmoid(model.apply(members[2], inputs, train=False))[0]
        expected = to_slice(np.asarray(square), image.shape)
        np.testing.assert_allclose(probabilities[2], expected, atol=1e-5)


def test_consumes_images_batch_by_batch(model, members):
    consumed = []

    def images():
        for i in range(100):
            consumed.append(i)
            yield np.zeros((32, 32), np.int16)

    predictor = EnsemblePredictor(
        model, members, preprocessing=PREPROCESSING, batch_size=2
    )
    next(predictor.probabilities(images()))
    assert consumed == [0, 1]


def test_flips_average_over_mirror_images(model, members):
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    predict = make_ensemble_predict(model, flips=True)
    outputs = predict(stack(members), images)
    assert outputs.shape == (3, 2, 32, 32)
    for member, output in zip(members, outputs, strict=True):
        views = []
        for axes in ((), (1,), (2,), (1, 2)):
            logits = model.apply(member, np.flip(images, axes), train=False)
            views.append(np.flip(jax.nn.sigmoid(logits), axes))
        np.testing.assert_allclose(output, np.mean(views, axis=0), atol=1e-6)
    assert abs(views[0] - views[3]).max() > 1e-3  # the views differ


def test_a_single_slice_equals_the_same_slice_in_a_batch(model, members):
    predictor = EnsemblePredictor(
        model, members, preprocessing=PREPROCESSING, batch_size=4
    )
    rng = np.random.default_rng(2)
    images = [rng.integers(-1000, 400, (32, 32), np.int16) for _ in range(3)]
    in_batch = list(predictor.probabilities(images))
    for image, expected in zip(images, in_batch, strict=True):
        (single,) = predictor.probabilities([image])
        np.testing.assert_allclose(single, expected, atol=1e-6)


def test_zips_slices_with_their_own_predictions(model, members):
    predictor = EnsemblePredictor(
        model, members, preprocessing=PREPROCESSING, batch_size=2
    )
    rng = np.random.default_rng(3)
    slices = [
        Slice(str(i), rng.integers(-1000, 400, (32, 32), np.int16), None)
        for i in range(5)
    ]
    pairs = list(
        zip_with_predictions(
            predictor.probabilities, iter(slices), image_of=lambda item: item.image
        )
    )
    assert [item.name for item, _ in pairs] == ["0", "1", "2", "3", "4"]
    for item, probabilities in pairs:
        (expected,) = predictor.probabilities([item.image])
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)
