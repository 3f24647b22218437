"""The U-Nets: parameter counts, names, shapes, precision and training mode."""

import functools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.checkpointing.manifest import named_leaves
from lungseg_jax.models import MODELS, make_model
from lungseg_jax.models.unet import pad_to_multiple
from lungseg_jax.models.variables import (
    abstract_variables,
    count_parameters,
    init_variables,
)

LEVELS = [f"{way}_{i}" for way in ("down", "up") for i in (1, 2, 3, 4)]


@functools.cache
def shapes_of(name, channels=3, **keywords):
    return abstract_variables(make_model(name, **keywords), channels=channels)


# --- counts and names: the checkpoint format ---


@pytest.mark.parametrize(
    "name,kernel_size,total,trainable",
    [
        # As Keras counts the notebooks' networks.
        ("conv", 1, 178_529, 176_609),
        ("inception", 3, 475_889, 472_529),
    ],
)
def test_parameter_counts_of_the_notebooks(name, kernel_size, total, trainable):
    variables = shapes_of(name, kernel_size=kernel_size)
    assert set(variables) == {"params", "batch_stats"}
    assert count_parameters(variables["params"]) == trainable
    assert count_parameters(variables) == total


def test_3x3_kernels_are_nine_times_1x1():
    """The head has a 3x3 kernel in both; biases and norms do not change."""
    counts = [
        sum(
            leaf.size
            for path, leaf in named_leaves(shapes_of("conv", kernel_size=k)).items()
            if path.endswith("layer/conv/kernel")
        )
        for k in (1, 3)
    ]
    # In: 3, 32, 64, 128, then 256, 256+128, 128+64, 64+32; out: 4f.
    ins, outs = (
        (3, 32, 64, 128, 256, 384, 192, 96),
        (32, 64, 128, 256, 256, 128, 64, 32),
    )
    products = sum(i * o for i, o in zip(ins, outs, strict=True))
    assert counts == [products, 9 * products]


@pytest.mark.parametrize(
    "name,layers",
    [
        ("conv", ["layer"]),
        ("inception", ["stem", "deep_1", "deep_2", "middle", "pooled"]),
    ],
)
def test_names_are_pinned(name, layers):
    variables = shapes_of(name)
    units = [f"{level}/{layer}" for level in LEVELS for layer in layers]
    leaves = ("conv/kernel", "conv/bias", "norm/scale", "norm/bias")
    assert set(named_leaves(variables["params"])) == {
        *(f"{unit}/{leaf}" for unit in units for leaf in leaves),
        "head/kernel",
        "head/bias",
    }
    assert set(named_leaves(variables["batch_stats"])) == {
        f"{unit}/norm/{leaf}" for unit in units for leaf in ("mean", "var")
    }


@pytest.mark.parametrize(
    "name,path,shape",
    [
        ("conv", "down_1/layer/conv/kernel", (3, 3, 3, 32)),
        ("conv", "down_4/layer/norm/scale", (256,)),
        ("conv", "up_1/layer/conv/kernel", (3, 3, 256, 256)),
        ("conv", "up_2/layer/conv/kernel", (3, 3, 384, 128)),  # 256 up + 128 skip
        ("conv", "head/kernel", (3, 3, 64, 1)),  # 32 up + 32 skip
        ("inception", "down_1/stem/conv/kernel", (1, 1, 3, 24)),  # three branches of 8
        ("inception", "down_4/deep_2/conv/kernel", (3, 3, 64, 64)),
        ("inception", "up_4/pooled/conv/kernel", (1, 1, 96, 8)),  # 64 up + 32 skip
        ("inception", "head/bias", (1,)),
    ],
)
def test_shapes_are_pinned(name, path, shape):
    assert named_leaves(shapes_of(name)["params"])[path].shape == shape


def test_filters_scale_every_level():
    shapes = named_leaves(shapes_of("conv", filters=3)["params"])
    widths = [shapes[f"{level}/layer/conv/bias"].shape[0] for level in LEVELS]
    assert widths == [12, 24, 48, 96, 96, 48, 24, 12]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("levels", [2, 3, 5, 7])
def test_further_levels_add_names_and_keep_those_of_the_others(name, levels):
    """With the shapes of before on the way down; the filters stay as many as in level 4."""
    four = named_leaves(shapes_of(name)["params"])
    other = named_leaves(shapes_of(name, levels=levels)["params"])
    names = {path.split("/")[0] for path in other} - {"head"}
    assert names == {
        f"{way}_{i}" for way in ("down", "up") for i in range(1, levels + 1)
    }
    for path, leaf in four.items():
        if path.startswith("down") and path in other:
            assert other[path].shape == leaf.shape, path
    for level in range(5, levels + 1):
        fourth, deeper = (
            [
                leaf.shape[-1]
                for path, leaf in other.items()
                if path.startswith(f"down_{i}/")
            ]
            for i in (4, level)
        )
        assert fourth == deeper


def test_every_skip_but_the_last_carries_the_pooled_feature():
    """Input channels on the way up, six levels: the skips have those of the level below."""
    shapes = named_leaves(shapes_of("conv", levels=6)["params"])
    inputs = [shapes[f"up_{i}/layer/conv/kernel"].shape[2] for i in range(1, 7)]
    assert inputs == [256, 256 + 256, 256 + 256, 256 + 128, 128 + 64, 64 + 32]
    assert shapes["head/kernel"].shape == (3, 3, 32 + 32, 1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("norm", ["group", "instance"])
def test_other_norms_have_the_same_parameters_and_no_statistics(name, norm):
    variables = shapes_of(name, norm=norm)
    assert set(variables) == {"params"}
    shapes = [
        {path: leaf.shape for path, leaf in named_leaves(tree["params"]).items()}
        for tree in (variables, shapes_of(name))
    ]
    assert shapes[0] == shapes[1]


# --- shapes, padding and precision ---


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "dtype,h,w",
    [
        ("float32", 64, 64),
        ("float32", 50, 70),
        ("float32", 33, 16),
        ("float32", 1, 1),
        ("bfloat16", 50, 70),
    ],
)
def test_logits_are_float32_of_the_input_size(name, dtype, h, w):
    images = jax.ShapeDtypeStruct((2, h, w, 1), jnp.float32)
    logits = jax.eval_shape(
        partial(make_model(name, dtype=dtype).apply, train=False),
        shapes_of(name, channels=1),
        images,
    )
    assert (logits.shape, logits.dtype) == ((2, h, w), jnp.float32)


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_keeps_parameters_and_statistics_in_float32(name):
    model = make_model(name, dtype="bfloat16")
    variables = shapes_of(name, channels=1, dtype="bfloat16")
    images = jax.ShapeDtypeStruct((2, 16, 16, 1), jnp.float32)
    _, updated = jax.eval_shape(
        partial(model.apply, train=True, mutable=["batch_stats"]), variables, images
    )
    for tree in (variables, updated):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}


@pytest.fixture(scope="module")
def tiny():
    """A conv U-Net of one filter with random variables, and images `[3 16 16 1]`."""
    model = make_model("conv", filters=1)
    variables = init_variables(model, channels=1, seed=0)
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key == "var":
            values = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            values = rng.normal(0, 0.5, leaf.shape)
        return jnp.array(values, jnp.float32)

    variables = jax.tree_util.tree_map_with_path(fill, variables)
    return model, variables, rng.random((3, 16, 16, 1)).astype(np.float32)


def apply(model, variables, images, *, train=False):
    run = jax.jit(partial(model.apply, train=train, mutable=["batch_stats"]))
    return run(variables, images)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype,short", [("bfloat16", "bf16"), ("float32", "f32")])
def test_all_products_have_the_requested_dtype(name, dtype, short):
    """A single wide operand would silently promote the rest to float32."""
    program = jax.make_jaxpr(partial(make_model(name, dtype=dtype).apply, train=False))(
        shapes_of(name, channels=1),
        jax.ShapeDtypeStruct((1, 16, 16, 1), jnp.float32),
    )
    product = r":(\w+)\[[\d,]*\] = (conv_general_dilated|dot_general)"
    dtypes = [match[0] for match in re.findall(product, str(program))]
    # Eight levels of one or five products. A SkipConcat needs one for its coarse and one
    # for its fine array, and after the pool four for the coarse pixels. The head has two.
    expected = {"conv": 8 + 3, "inception": 40 + 3 * (1 + 4)}
    assert dtypes == [short] * expected[name] + ["f32"] * 2


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_bfloat16_have_the_resolution_of_float32(name):
    """Logits of the size of 4: a bfloat16 has steps of 1/32 there."""
    model = make_model(name, filters=1, levels=2, dtype="bfloat16")
    variables = init_variables(model, channels=1, seed=0)
    variables["params"]["head"]["bias"] = jnp.full(1, 4.0)
    images = np.random.default_rng(0).random((1, 32, 32, 1)).astype(np.float32)
    logits = np.asarray(jax.jit(partial(model.apply, train=False))(variables, images))
    steps = np.diff(np.unique(logits))
    assert len(steps) > 200 and np.median(steps) < 1 / 32 / 8
    rounded = np.asarray(jnp.asarray(logits - 4).astype(jnp.bfloat16), np.float32)
    assert (logits - 4 != rounded).mean() > 0.5


def test_bfloat16_is_close_to_float32(tiny):
    """To the 8 bits of a bfloat16, but not closer."""
    _, variables, images = tiny
    exact, _ = apply(make_model("conv", filters=1), variables, images)
    rough, _ = apply(make_model("conv", filters=1, dtype="bfloat16"), variables, images)
    difference = np.abs(exact - rough).max() / np.abs(exact).max()
    assert 1e-4 < difference < 0.1


def test_other_sizes_are_padded_with_their_last_row_and_column(tiny):
    model, variables, images = tiny
    cut = images[:, :13, :10]
    padded = np.pad(cut, ((0, 0), (0, 3), (0, 6), (0, 0)), mode="edge")
    logits, _ = apply(model, variables, cut)
    of_padded, _ = apply(model, variables, padded)
    np.testing.assert_allclose(logits, of_padded[:, :13, :10], atol=1e-5)


def test_padding_is_minimal():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    assert pad_to_multiple(jnp.zeros((1, 32, 16, 1)), 16).shape == (1, 32, 16, 1)
    assert pad_to_multiple(x, 1) is x
    padded = pad_to_multiple(x, 4)[0, :, :, 0]
    np.testing.assert_array_equal(
        padded, [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    )
    np.testing.assert_array_equal(
        pad_to_multiple(x, 2)[0, :, :, 0], [[0, 1, 2, 2], [3, 4, 5, 5]]
    )


@pytest.mark.parametrize("levels", [2, 5])
def test_other_depths_give_logits_of_the_input_size(levels):
    images = np.random.default_rng(0).random((1, 40, 33, 1)).astype(np.float32)
    model = make_model("conv", filters=1, levels=levels)
    variables = init_variables(model, channels=1, seed=0)
    logits = jax.jit(partial(model.apply, train=False))(variables, images)
    assert logits.shape == (1, 40, 33) and np.isfinite(logits).all()
    assert logits.std() > 0


# --- training mode ---


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_images_of_a_batch_never_interact_without_batch_norm(norm, tiny):
    _, variables, images = tiny
    model = make_model("conv", filters=1, norm=norm)
    other = np.concatenate([images[:1], images[1:] * 3])
    first = [
        np.asarray(apply(model, {"params": variables["params"]}, x, train=train)[0])[0]
        for x in (images, other)
        for train in (False, True)
    ]
    for logits in first[1:]:
        np.testing.assert_allclose(logits, first[0], atol=1e-5)


def test_train_has_no_default(tiny):
    model, variables, images = tiny
    with pytest.raises(TypeError, match="train"):
        model.apply(variables, images)
    with pytest.raises(TypeError):
        model.apply(variables, images, False)


def test_statistics_change_only_in_train_mode(tiny):
    model, variables, images = tiny
    before = named_leaves(variables["batch_stats"])
    for train in (False, True):
        _, updated = apply(model, variables, images, train=train)
        after = named_leaves(updated["batch_stats"])
        assert before.keys() == after.keys()
        for name in before:
            is_unchanged = np.array_equal(before[name], after[name])
            assert is_unchanged == (not train), f"{name} with train={train}"


def test_images_of_a_batch_interact_only_in_train_mode(tiny):
    model, variables, images = tiny
    other = np.concatenate([images[:1], images[1:] * 3])
    for train in (False, True):
        first, second = (
            np.asarray(apply(model, variables, x, train=train)[0])[0]
            for x in (images, other)
        )
        assert np.allclose(first, second, atol=1e-5) == (not train)


def test_biases_before_a_norm_have_zero_gradient(tiny):
    """Otherwise it would be rounding noise, which Adam rescales into full-size updates."""
    model, variables, images = tiny

    def loss(params):
        logits, _ = model.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return (logits**2).sum()

    for path, leaf in named_leaves(
        jax.jit(jax.grad(loss))(variables["params"])
    ).items():
        is_zero = path.endswith("layer/conv/bias")
        assert (np.abs(leaf).max() == 0.0) == is_zero, path
