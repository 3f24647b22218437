"""Programs for devices that are not there: exported for TPUs and GPUs, divided among eight.

The operators, the augmentation and the gradients of each platform, without libtpu or CUDA.
"""

import functools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from lungseg_jax.data.augmentation.transforms import TRANSFORMS
from lungseg_jax.inference.ensemble.lowering import lower_predict
from lungseg_jax.inference.ensemble.predictor import make_predict
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import abstract_variables
from lungseg_jax.runtime import compilation, device_mesh
from lungseg_jax.runtime.ahead_of_time.arithmetic import count_flops
from lungseg_jax.runtime.ahead_of_time.hlo import measure_traffic
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.config import default_config
from lungseg_jax.training.programs import lower_train_steps, trace_train_steps
from lungseg_jax.training.recipes import without_variety
from lungseg_jax.training.steps import make_prepare

ACCELERATORS = ("cuda", "tpu")


def small_config(**changes) -> ConfigDict:
    c = without_variety(default_config())
    c.data.image_size = 32
    c.model.filters = 2
    c.model.levels = 2
    c.model.dtype = "bfloat16"
    for name, value in changes.items():
        group, key = name.split("__")
        c[group][key] = value
    return c


# --- on eight devices ---

ON_EIGHT = Path(__file__).with_name("on_eight_devices.py")


@pytest.fixture(scope="module")
def on_eight(run_on_devices, tmp_path_factory):
    """The train steps for eight devices as text, and gradients on eight and on one."""
    file = tmp_path_factory.mktemp("eight") / "result.json"
    run_on_devices(8, ON_EIGHT, file)
    return json.loads(file.read_text())


def test_eight_devices_add_the_gradients_of_kernels_in_float32(on_eight):
    """All parts of a bfloat16 network but the head, which is float32 anyway."""
    reduced = re.findall(
        r'"stablehlo.all_reduce".*?\) : \(tensor<[\dx]*x(\w+)>\)',
        on_eight["stablehlo"],
        re.S,
    )
    shapes = abstract_variables(make_model(**small_config().model), channels=1)
    paths, _ = jax.tree_util.tree_flatten_with_path(shapes["params"])
    kernels = [path for path, _ in paths if path[-1].key == "kernel"]
    assert len(reduced) >= len(kernels) - 1 and {*reduced} == {"f32"}


def test_gradients_on_eight_devices_equal_those_on_one(on_eight):
    """Sums of small integers, which are exact on any number of devices."""
    assert len(on_eight["one"]) == 12
    for eight, one in zip(on_eight["eight"], on_eight["one"], strict=True):
        np.testing.assert_array_equal(eight, one)
        assert np.abs(one).max() > 4


def test_devices_exchange_sums_and_never_data(on_eight):
    collectives = measure_traffic(on_eight["compiled"]).collectives
    assert {(c.opcode, c.dtype) for c in collectives} == {("all-reduce", "f32")}


def test_devices_with_their_own_moments_do_not_wait_for_those_of_others(on_eight):
    """What is left can wait: the gradients of parameters, and running statistics."""
    shared, own = (sum(count for _, count, _ in norm) for norm in on_eight["norms"])
    assert 1 <= own < shared


def test_choices_by_platform_are_made_when_a_program_is_lowered(on_eight):
    assert " conditional(" not in on_eight["compiled"]


# --- for a platform ---


@pytest.fixture(scope="module")
def texts():
    """Programs as text, by name and platform, lowered here as for devices of each."""
    mesh, c = device_mesh.make_mesh(jax.devices()[:1]), small_config()
    shapes = (
        jax.ShapeDtypeStruct((4, 32, 32, 1), np.int16),
        jax.ShapeDtypeStruct((4, 32, 32), np.float32),
    )
    augment = default_config().augment.to_dict()
    every = augment | {name: 0.5 for name in TRANSFORMS}
    prepare = make_prepare(every, lambda images: images, seed=0)
    result = {}
    for platform in ("cpu", *ACCELERATORS):
        make_predict.cache_clear()
        with pytest.MonkeyPatch.context() as m:
            target = "gpu" if platform == "cuda" else platform  # as its devices say
            m.setattr(compilation, "platform_of", lambda sharding: target)
            steps = lower_train_steps(c, mesh, 24, platforms=[platform])
            predict = lower_predict(c, mesh, platforms=[platform])
        indices = jax.ShapeDtypeStruct((2,), np.int32)
        prepared = jax.jit(prepare).trace(*shapes, indices, np.int32(1))
        augmentation = prepared.lower(lowering_platforms=(platform,))
        result["steps", platform] = steps.as_text()
        result["predict", platform] = predict.as_text()
        result["augmentation", platform] = augmentation.as_text()
    make_predict.cache_clear()
    return result


def test_the_cpu_has_barriers_in_pools_and_a_gpu_between_gradients(texts):
    """On a GPU, one for each of four blocks and two pools of the two levels.

    JAX has some of its own, which are of a few numbers and not of feature maps.
    """
    barrier = re.compile(r"stablehlo.optimization_barrier .* : tensor<(?:\d+x){4}")
    count = {which: len(barrier.findall(text)) for which, text in texts.items()}
    assert count["steps", "cpu"] and count["predict", "cpu"]
    assert (count["steps", "cuda"], count["predict", "cuda"]) == (6, 0)
    assert (count["steps", "tpu"], count["predict", "tpu"]) == (0, 0)


@pytest.mark.parametrize("platform", ACCELERATORS)
@pytest.mark.parametrize("program", ["steps", "predict", "augmentation"])
def test_nothing_is_computed_in_float64(texts, program, platform):
    types = {*re.findall(r"tensor<(?:[\dx]+x)?(\w+)>", texts[program, platform])}
    assert "f32" in types and not types & {"f64", "i64", "complex<f64>"}


@pytest.mark.parametrize("platform", ACCELERATORS)
def test_augmentation_has_no_matrix_products(texts, platform):
    """At a TPU's default precision they would move pixels; see `data.augmentation`."""
    text = texts["augmentation", platform]
    assert "stablehlo.gather" in text and "dot_general" not in text
    assert "dot_general" in texts["steps", platform]


@pytest.mark.parametrize("platform", ACCELERATORS)
def test_networks_compute_in_bfloat16(texts, platform):
    """All convolutions but the head's, which are a few where a TPU folds rows."""
    for program in ("steps", "predict"):
        dtypes = re.findall(
            r"stablehlo\.convolution.*-> tensor<[\dx]+x(\w+)>", texts[program, platform]
        )
        assert {*dtypes} == ({"bf16", "f32"} if platform == "tpu" else {"bf16"})
        assert 10 * dtypes.count("f32") < dtypes.count("bf16")


@pytest.mark.parametrize("program", ["steps", "predict"])
def test_narrow_convolutions_are_widened_for_accelerators(texts, program):
    """The 3x3 convolutions of the first level have 2 channels: 32 pixels make 64."""
    plain, wide = (rf"convolution\(.*tensor<3x3x{n}x{n}x" for n in (2, 64))
    assert re.search(plain, texts[program, "cpu"])
    assert not re.search(wide, texts[program, "cpu"])
    for platform in ACCELERATORS:
        assert re.search(wide, texts[program, platform])
        assert not re.search(plain, texts[program, platform])


@pytest.mark.parametrize("program", ["steps", "predict"])
def test_only_a_tpu_keeps_rows_folded(texts, program):
    """Elsewhere, 1x1 convolutions become matrix products."""
    point = re.compile(r"convolution\(.*tensor<1x1x")
    found = {p for p in ("cpu", *ACCELERATORS) if point.search(texts[program, p])}
    assert found == {"tpu"}


def test_extra_phantoms_are_on_the_devices_beside_the_training_split():
    mesh = device_mesh.make_mesh(jax.devices()[:1])
    lowered = lower_train_steps(small_config(data__extra_phantoms=10), mesh, 24)
    _, images, masks, *_ = lowered.args_info[0]
    assert len(images.shape) == 4 and images.shape[0] == masks.shape[0] == 24 + 10


def test_micro_batches_are_the_arithmetic_of_a_batch():
    mesh = device_mesh.make_mesh(jax.devices()[:1])
    whole, parts = (
        count_flops(
            trace_train_steps(small_config(train__accumulate=n), mesh, 24).jaxpr
        )
        for n in (1, 2)
    )
    assert whole == parts > 0


def test_faulty_requests_are_refused():
    mesh = device_mesh.make_mesh(jax.devices()[:1])
    with pytest.raises(UserError, match="slices=4 are fewer than a batch"):
        lower_train_steps(small_config(), mesh, 4)
    with pytest.raises(UserError, match="slices=0 are fewer") as e:
        lower_train_steps(small_config(), mesh, 0)
    assert e.value.remedy == "more slices, or a smaller train.batch_size."
    with pytest.raises(UserError, match="model.filters"):
        lower_predict(small_config(model__filters=0), mesh)
    for lower in (lower_predict, functools.partial(lower_train_steps, slices=24)):
        with pytest.raises(UserError, match="unknown platform 'gpu'"):
            lower(small_config(), mesh, platforms=["gpu"])


def test_any_mesh_of_the_devices_will_do():
    own = device_mesh.make_mesh(jax.devices()[:1])
    other = jax.make_mesh((1, 1), ("x", "y"), devices=jax.devices()[:1])
    for lower in (lower_predict, functools.partial(lower_train_steps, slices=24)):
        assert (
            lower(small_config(), other).as_text()
            == lower(small_config(), own, platforms="cpu").as_text()
        )
