"""The compiled ensemble is the loop over its members."""

import jax
import numpy as np
import pytest

from lungseg_jax.data.preprocess import image_to_network, to_slice
from lungseg_jax.ensemble import Ensemble, disagreement, select_members, stack
from lungseg_jax.errors import UserError
from lungseg_jax.models import make_model
from lungseg_jax.steps import make_ensemble_predict
from lungseg_jax.train_state import init_variables

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
    ensemble = Ensemble(model, members, preprocessing=PREPROCESSING, batch_size=2)
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

    ensemble = Ensemble(model, members, preprocessing=PREPROCESSING, batch_size=2)
    next(ensemble.probabilities(images()))
    assert taken == [0, 1]


@pytest.mark.parametrize(
    "masks,expected",
    [
        ([[[1, 1, 0, 0]], [[1, 1, 0, 0]]], 0.0),
        ([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], 2 / 3),  # 1 of 3 pixels in common
        ([[[1, 0, 0, 0]], [[0, 1, 0, 0]]], 1.0),
        ([[[0, 0, 0, 0]], [[0, 0, 0, 0]]], 0.0),  # none sees lung: they agree
        ([[[1, 0, 1, 0]]], 0.0),  # one member
    ],
)
def test_disagreement(masks, expected):
    assert disagreement(np.array(masks, bool)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "choice,expected",
    [
        ("all", [10, 20, 30]),
        ("last", [30]),
        ("best", [20]),
        ("30, 10", [10, 30]),
        ("20", [20]),
    ],
)
def test_select_members(choice, expected):
    chosen = select_members(
        choice, snapshots=[10, 20, 30], validation_iou={10: 0.9, 20: 0.95, 30: 0.94}
    )
    assert chosen == expected


@pytest.mark.parametrize("choice", ["11", "10,x", "", "worst"])
def test_unknown_members_are_refused(choice):
    with pytest.raises(UserError, match="no snapshot of this run"):
        select_members(choice, snapshots=[10, 20], validation_iou={})


def test_best_needs_validation_and_any_choice_a_snapshot():
    with pytest.raises(UserError, match="validation"):
        select_members("best", snapshots=[10], validation_iou={})
    with pytest.raises(UserError, match="no snapshot yet"):
        select_members("all", snapshots=[], validation_iou={})
