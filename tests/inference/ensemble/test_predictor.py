"""The compiled ensemble agrees with a loop over its members."""

import dataclasses

import jax
import numpy as np
import pytest

from lungseg_jax.data.pairs import Slice
from lungseg_jax.data.preprocessing import Preprocessing, to_slice
from lungseg_jax.inference.ensemble.predictor import (
    EnsemblePredictor,
    make_predict,
    zip_with_predictions,
)
from lungseg_jax.inference.ensemble.trained import make_network
from lungseg_jax.inference.ensemble.views import (
    AS_IT_IS,
    LEFT_TO_RIGHT,
    TOP_TO_BOTTOM,
    VIEWS,
    assign_views,
)
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import init_variables
from lungseg_jax.runtime.errors import UserError

PREPROCESSING = Preprocessing("window", 32, (-1000.0, 400.0))


@pytest.fixture(scope="module")
def model():
    return make_model("conv", filters=1, levels=2)


@pytest.fixture(scope="module")
def members(model):
    return [init_variables(model, channels=1, seed=seed) for seed in range(3)]


def make_predictor(model, members, batch_size=4):
    """A predictor whose members see slices as they are."""
    return EnsemblePredictor(
        model,
        members,
        preprocessing=PREPROCESSING,
        batch_size=batch_size,
        views=[[AS_IT_IS]] * len(members),
    )


def test_a_device_without_memory_is_a_plain_error(model, members, monkeypatch):
    predictor = make_predictor(model, members)

    def fail(*args):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 8796093022208 bytes."
        )

    monkeypatch.setattr(predictor, "_predict", fail)
    with pytest.raises(UserError, match="8192.00 GiB were asked for") as e:
        next(predictor.probabilities([(np.zeros((32, 32), np.int16), 1.0)]))
    assert "--members=last" in e.value.remedy


def test_predict_equals_the_network(model, members):
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    outputs = [make_predict(model)(m, images, np.int32([AS_IT_IS])) for m in members]
    for member, output in zip(members, outputs, strict=True):
        expected = jax.nn.sigmoid(model.apply(member, images, train=False))
        np.testing.assert_allclose(output, expected, atol=1e-6)
    assert abs(outputs[0] - outputs[1]).max() > 1e-3  # the members differ


def test_yields_slices_of_any_size_and_number_in_order(model, members):
    predictor = make_predictor(model, members, batch_size=2)
    rng = np.random.default_rng(1)
    shapes = [(40, 40), (64, 30), (32, 32)]
    images = [rng.integers(-1000, 400, shape, np.int16) for shape in shapes]
    outputs = list(predictor.probabilities((image, 1.0) for image in images))
    assert [p.shape for p in outputs] == [(3, *shape) for shape in shapes]
    for image, probabilities in zip(images, outputs, strict=True):
        inputs = PREPROCESSING.image(image)[None]
        square = jax.nn.sigmoid(model.apply(members[2], inputs, train=False))[0]
        expected = to_slice(np.asarray(square), image.shape)
        np.testing.assert_allclose(probabilities[2], expected, atol=1e-5)


def test_reads_one_batch_ahead(model, members):
    """So that the devices have work while the caller has results."""
    consumed = []

    def slices():
        for i in range(100):
            consumed.append(i)
            yield np.zeros((32, 32), np.int16), 1.0

    predictor = make_predictor(model, members, batch_size=2)
    outputs = predictor.probabilities(slices())
    for expected in (4, 4, 6, 6, 8):
        next(outputs)
        assert len(consumed) == expected


def test_a_batch_is_started_before_the_one_before_is_awaited(
    model, members, monkeypatch
):
    predictor = make_predictor(model, members[:1], batch_size=2)
    events, predict = [], predictor._predict

    class Output:
        def __init__(self, array):
            self.array, self.number = array, events.count("start")
            events.append("start")

        def __array__(self, dtype=None, copy=None):
            events.append(f"wait for {self.number}")
            return np.asarray(self.array)

    monkeypatch.setattr(predictor, "_predict", lambda *args: Output(predict(*args)))
    list(predictor.probabilities([(np.zeros((32, 32), np.int16), 1.0)] * 5))
    assert events == [
        "start",
        "start",
        "wait for 0",
        "start",
        "wait for 1",
        "wait for 2",
    ]


SHARED = """
import sys
import jax, numpy as np
from lungseg_jax.data.preprocessing import Preprocessing
from lungseg_jax.inference.ensemble.predictor import EnsemblePredictor
from lungseg_jax.inference.ensemble.views import AS_IT_IS
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import init_variables

model = make_model("conv", filters=1, levels=2)
members = [init_variables(model, channels=1, seed=seed) for seed in range(2)]
window = Preprocessing("window", 32, (-1000.0, 400.0))
predictor = EnsemblePredictor(
    model, members, preprocessing=window, batch_size=6, views=[[AS_IT_IS]] * 2
)
rng = np.random.default_rng(0)
slices = [(rng.integers(-1000, 400, (40, 36), np.int16), 1.0) for _ in range(13)]
np.save(sys.argv[1], np.stack(list(predictor.probabilities(slices))))
one = next(predictor.probabilities(slices[:1]))
np.save(sys.argv[2], one)
(output,) = predictor._start(slices[:6])[:1]
print(*(len(part.data) for part in output.addressable_shards))
print(predictor._predict._cache_size())
"""


def test_all_devices_share_a_batch(run_on_devices, tmp_path):
    """The masks are those of one device, and the probabilities to rounding."""
    results = {}
    for devices in (1, 4):
        files = [tmp_path / f"{name}{devices}.npy" for name in ("all", "one")]
        shares, programs = run_on_devices(devices, SHARED, *files).splitlines()
        assert shares == {1: "6", 4: "2 2 2 2"}[devices]  # 6 are rounded up to 8
        assert programs == "2"
        results[devices] = [np.load(file) for file in files]
    for one, four in zip(results[1], results[4], strict=True):
        np.testing.assert_allclose(four, one, atol=1e-6)
        np.testing.assert_array_equal(four.mean(-3) > 0.5, one.mean(-3) > 0.5)
    assert results[1][0].shape == (13, 2, 40, 36)
    assert 0.1 < (results[1][0] > 0.5).mean() < 0.9  # not trivial


def test_a_cpu_predicts_in_float32(trained):
    """Whatever the network was trained in."""
    short = dataclasses.replace(trained, model={**trained.model, "dtype": "bfloat16"})
    image = np.random.default_rng(4).integers(-1000, 400, (32, 32), np.int16)
    (expected,), (actual,) = (
        ensemble.predictor().probabilities([(image, 1.0)])
        for ensemble in (trained, short)
    )
    np.testing.assert_array_equal(actual, expected)
    dtypes = {p: make_network(short.model, p).dtype for p in ("cpu", "tpu", "cuda")}
    assert dtypes == {"cpu": "float32", "tpu": "bfloat16", "cuda": "bfloat16"}


@pytest.mark.parametrize("views", [[0], [1], [2], [3], [1, 2], VIEWS])
def test_a_network_is_averaged_over_its_views(model, members, views):
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    output = make_predict(model)(members[0], images, np.int32(views))
    seen = []
    for view in views:
        axes = {0: (), 1: (2,), 2: (1,), 3: (1, 2)}[view]
        logits = model.apply(members[0], np.flip(images, axes), train=False)
        seen.append(np.flip(jax.nn.sigmoid(logits), axes))
    np.testing.assert_allclose(output, np.mean(seen, axis=0), atol=1e-6)
    plain = jax.nn.sigmoid(model.apply(members[0], images, train=False))
    assert (abs(output - plain).max() > 1e-3) == (views != [AS_IT_IS])


def test_each_member_has_its_view_whoever_else_predicts(trained):
    """The last one, which is also used by itself, sees slices as they are."""
    (image,) = np.random.default_rng(5).integers(-1000, 400, (1, 32, 32), np.int16)

    def predict(ensemble, **options):
        return next(ensemble.predictor(**options).probabilities([(image, 1.0)]))

    views = assign_views(list(trained.members))
    assert views == {"10": TOP_TO_BOTTOM, "20": LEFT_TO_RIGHT, "30": AS_IT_IS}
    mirrored = dataclasses.replace(trained, views=views)
    of_all, of_plain = predict(mirrored), predict(trained)
    for i, name in enumerate(trained.members):
        np.testing.assert_array_equal(predict(mirrored.subset([name]))[0], of_all[i])
        assert (of_all[i] == of_plain[i]).all() == (name == "30")


def test_flips_average_each_member_over_all_views(trained):
    image = np.random.default_rng(6).integers(-1000, 400, (32, 32), np.int16)
    (flipped,) = trained.predictor(flips=True).probabilities([(image, 1.0)])
    each = []
    for view in VIEWS:
        views = dict.fromkeys(trained.members, view)
        predictor = dataclasses.replace(trained, views=views).predictor()
        each += predictor.probabilities([(image, 1.0)])
    np.testing.assert_allclose(flipped, np.mean(each, axis=0), atol=1e-5)


def test_a_single_slice_equals_the_same_slice_in_a_batch(model, members):
    predictor = make_predictor(model, members, batch_size=4)
    rng = np.random.default_rng(2)
    images = [rng.integers(-1000, 400, (32, 32), np.int16) for _ in range(3)]
    in_batch = list(predictor.probabilities((image, 1.0) for image in images))
    for image, expected in zip(images, in_batch, strict=True):
        (single,) = predictor.probabilities([(image, 1.0)])
        np.testing.assert_allclose(single, expected, atol=1e-6)


def test_zips_slices_with_their_own_predictions(model, members):
    predictor = make_predictor(model, members, batch_size=2)
    rng = np.random.default_rng(3)
    slices = [
        Slice(str(i), rng.integers(-1000, 400, (32, 32), np.int16), None, 1 + i / 4)
        for i in range(5)
    ]
    pairs = list(zip_with_predictions(predictor.probabilities, iter(slices)))
    assert [item.name for item, _ in pairs] == ["0", "1", "2", "3", "4"]
    for item, probabilities in pairs:
        (expected,) = predictor.probabilities([(item.image, item.aspect)])
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_an_error_waits_for_the_program_that_runs(model, members, monkeypatch):
    """The process may end with the error, and XLA's threads not be there any more."""

    def slices():
        for _ in range(3):
            yield np.zeros((32, 32), np.float32), 1.0
        raise OSError("no such slice")

    waited, wait = [], jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda x: waited.append(wait(x)))
    predicted = make_predictor(model, members, batch_size=2).probabilities(slices())
    with pytest.raises(OSError, match="no such slice"):
        list(predicted)
    assert len(jax.tree.leaves(waited)) >= len(members)
