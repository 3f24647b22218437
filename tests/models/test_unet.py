"""The three networks: counts, names, shapes, layers, and parity with Keras."""

import functools
import os
import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.models import MODELS, make_model
from lungseg_jax.models.blocks import (
    Conv,
    ConvNormAct,
    InceptionBlock,
    Norm,
    glorot_by_branch,
)
from lungseg_jax.models.unet import pad_to_multiple
from lungseg_jax.models.variables import count_parameters, init_variables
from lungseg_jax.runtime.errors import UserError

LEVELS = [f"{way}_{i}" for way in ("down", "up") for i in (1, 2, 3, 4)]

# Unoptimised programs compile several times faster; these tests run each of them once.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def shapes_of(name, channels=3, **keywords):
    """Abstract variables: nothing is drawn and nothing is compiled."""
    model, example = make_model(name, **keywords), jnp.zeros((1, 16, 16, channels))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), example, train=False))


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


# --- counts and names: the checkpoint format ---


@pytest.mark.parametrize(
    "name,kernel_size,in_all,trainable",
    [
        # As Keras counts the notebooks' networks.
        ("conv", 1, 178_529, 176_609),
        ("inception", 3, 475_889, 472_529),
    ],
)
def test_counts_of_the_notebooks(name, kernel_size, in_all, trainable):
    variables = shapes_of(name, kernel_size=kernel_size)
    assert set(variables) == {"params", "batch_stats"}
    assert count_parameters(variables["params"]) == trainable
    assert count_parameters(variables) == in_all


def test_3x3_kernels_are_nine_times_1x1():
    """The head's 3x3 kernel is the same in both; so are biases and norms."""
    counts = [
        sum(
            leaf.size
            for path, leaf in by_path(shapes_of("conv", kernel_size=k)).items()
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
    assert set(by_path(variables["params"])) == {
        *(f"{unit}/{leaf}" for unit in units for leaf in leaves),
        "head/kernel",
        "head/bias",
    }
    assert set(by_path(variables["batch_stats"])) == {
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
    assert by_path(shapes_of(name)["params"])[path].shape == shape


def test_filters_scale_every_level():
    shapes = by_path(shapes_of("conv", filters=3)["params"])
    widths = [shapes[f"{level}/layer/conv/bias"].shape[0] for level in LEVELS]
    assert widths == [12, 24, 48, 96, 96, 48, 24, 12]


@pytest.mark.parametrize("name", ["unet", "Conv", ""])
def test_unknown_name_lists_the_known(name):
    with pytest.raises(UserError) as e:
        make_model(name)
    assert repr(name) in e.value.what and e.value.rule == "one of: conv, inception."


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
    """A conv net of one filter, random everywhere, and images [3 16 16 1]."""
    model = make_model("conv", filters=1)
    variables = init_variables(model, channels=1, seed=0)
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        is_variance = path[-1].key == "var"
        drawn = rng.uniform(0.5, 1.5, leaf.shape) if is_variance else None
        drawn = rng.normal(0, 0.5, leaf.shape) if drawn is None else drawn
        return jnp.array(drawn, jnp.float32)

    variables = jax.tree_util.tree_map_with_path(fill, variables)
    return model, variables, rng.random((3, 16, 16, 1)).astype(np.float32)


def apply(model, variables, images, *, train=False):
    run = quick_jit(partial(model.apply, train=train, mutable=["batch_stats"]))
    return run(variables, images)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype,short", [("bfloat16", "bf16"), ("float32", "f32")])
def test_products_are_of_the_dtype_asked_for(name, dtype, short):
    """All of them: a single wide operand would lift the rest to float32 in silence."""
    program = jax.make_jaxpr(partial(make_model(name, dtype=dtype).apply, train=False))(
        shapes_of(name, channels=1),
        jax.ShapeDtypeStruct((1, 16, 16, 1), jnp.float32),
    )
    product = r":(\w+)\[[\d,]*\] = (conv_general_dilated|dot_general)"
    dtypes = [found[0] for found in re.findall(product, str(program))]
    # Eight levels of one or of five products, and the head; of a coarse and a fine input
    # one each, and four for the pixels of a coarse one that went through the pool.
    expected = {"conv": 9 + 4, "inception": 41 + 3 * (1 + 4) + 1}
    assert dtypes == [short] * expected[name]


def test_bfloat16_is_near_float32(tiny):
    """To the 8 bits of a bfloat16, and no nearer."""
    _, variables, images = tiny
    exact, _ = apply(make_model("conv", filters=1), variables, images)
    rough, _ = apply(make_model("conv", filters=1, dtype="bfloat16"), variables, images)
    difference = np.abs(exact - rough).max() / np.abs(exact).max()
    assert 1e-4 < difference < 0.1


def test_other_sizes_are_padded_by_their_last_row_and_column(tiny):
    model, variables, images = tiny
    cut = images[:, :13, :10]
    padded = np.pad(cut, ((0, 0), (0, 3), (0, 6), (0, 0)), mode="edge")
    logits, _ = apply(model, variables, cut)
    of_padded, _ = apply(model, variables, padded)
    np.testing.assert_allclose(logits, of_padded[:, :13, :10], atol=1e-5)


def test_pads_only_what_is_needed():
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


# --- batch norm and training mode ---


def test_train_has_no_default(tiny):
    model, variables, images = tiny
    with pytest.raises(TypeError, match="train"):
        model.apply(variables, images)
    with pytest.raises(TypeError):
        model.apply(variables, images, False)


def test_statistics_change_in_train_mode_alone(tiny):
    model, variables, images = tiny
    for train in (False, True):
        _, updated = apply(model, variables, images, train=train)
        old, new = by_path(variables["batch_stats"]), by_path(updated["batch_stats"])
        for path in old:
            same = np.array_equal(old[path], new[path])
            assert same == (not train), f"{path} with train={train}"


def test_images_of_a_batch_meet_in_train_mode_alone(tiny):
    model, variables, images = tiny
    other = np.concatenate([images[:1], images[1:] * 3])
    for train in (False, True):
        first, second = (
            np.asarray(apply(model, variables, x, train=train)[0])[0]
            for x in (images, other)
        )
        assert np.allclose(first, second, atol=1e-5) == (not train)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("momentum", [0.9, 0.99])
def test_conv_norm_act_by_hand(train, momentum):
    """Kernel 1, bias 0 on 1, 5, 1, 5: mean 3, variance 4; running: 0 and 1."""
    unit = ConvNormAct(1, 1, bn_momentum=momentum)
    x = jnp.array([1.0, 5.0, 1.0, 5.0]).reshape(1, 2, 2, 1)
    variables = unit.init(jax.random.key(0), x, train=False)
    variables["params"]["conv"]["kernel"] = jnp.ones((1, 1, 1, 1))
    y, updated = unit.apply(variables, x, train=train, mutable=["batch_stats"])
    one = 2 / np.sqrt(4 + 1e-3) if train else None
    expected = [-0.3 * one, one] if train else np.array([1, 5]) / np.sqrt(1 + 1e-3)
    np.testing.assert_allclose(y.ravel()[:2], expected, rtol=1e-5)
    stats = updated["batch_stats"]["norm"]
    new = 1 - momentum if train else 0.0
    np.testing.assert_allclose(stats["mean"], [new * 3], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(stats["var"], [1 + new * 3], rtol=1e-5)


def test_biases_before_a_norm_are_not_trained(tiny):
    """Their gradient is rounding noise, which Adam would make full steps of."""
    model, variables, images = tiny

    def loss(params):
        logits, _ = model.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return (logits**2).sum()

    for path, leaf in by_path(quick_jit(jax.grad(loss))(variables["params"])).items():
        is_still = path.endswith("layer/conv/bias")
        assert (np.abs(leaf).max() == 0.0) == is_still, path


# --- layers against the libraries' own ---


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_conv_is_that_of_linen(kernel_size):
    x = jnp.array(np.random.default_rng(0).normal(size=(2, 7, 5, 4)), jnp.float32)
    ours = Conv(6, kernel_size)
    kernel = np.random.default_rng(1).normal(size=(kernel_size, kernel_size, 4, 6))
    params = {"kernel": kernel.astype(np.float32), "bias": jnp.arange(6.0)}
    linens = nn.Conv(6, (kernel_size, kernel_size))
    convolved, bias = ours.apply({"params": params}, x)
    np.testing.assert_allclose(
        convolved + bias, linens.apply({"params": params}, x), atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("train", [False, True])
def test_norm_is_that_of_linen_after_a_bias(train, dtype):
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(2, 3, (2, 5, 4, 3)), dtype)
    vectors = [jnp.array(rng.uniform(0.5, 2, 3), jnp.float32) for _ in range(5)]
    scale, offset, mean, var, bias = vectors
    variables = {
        "params": {"scale": scale, "bias": offset},
        "batch_stats": {"mean": mean, "var": var},
    }
    weights = rng.normal(size=x.shape)
    linens = nn.BatchNorm(
        use_running_average=not train, momentum=0.8, epsilon=1e-3, dtype=dtype
    )

    def ours(x, variables):
        norm = partial(Norm(0.8).apply, mutable=["batch_stats"], train=train)
        return norm(variables, x, bias)

    def theirs(x, variables):
        return linens.apply(variables, x + bias, mutable=["batch_stats"])

    def both_ways(f):
        def loss(x, variables):
            y, updated = f(x, variables)
            return (y * weights).sum(), (y, updated)

        gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
        (by_x, by_variables), out = gradient(x, variables)
        return by_x, by_variables["params"], out

    bits = {"float32": 1e-5, "bfloat16": 0.03}[dtype]
    close = partial(np.testing.assert_allclose, rtol=bits, atol=20 * bits)
    jax.tree.map(
        lambda a, b: close(a.astype("float32"), b.astype("float32")),
        both_ways(ours),
        both_ways(theirs),
    )


@pytest.mark.parametrize(
    "shape,branches",
    [((1, 1, 64, 96), 3), ((3, 3, 32, 64), 1), ((1, 1, 96, 8), 1), ((3, 3, 8, 64), 2)],
)
def test_glorot_by_branch(shape, branches):
    """Standard deviation sqrt(2/(fan in + fan out)) with each branch's own fan out."""
    k, _, inputs, features = shape
    own = features // branches
    expected = np.sqrt(2 / (k * k * (inputs + own)))
    keys = jax.random.split(jax.random.key(0), 16)
    init = glorot_by_branch(branches)
    draw = quick_jit(jax.vmap(lambda key: init(key, shape)))
    kernels = np.asarray(draw(keys))  # [16 k k i o]
    assert kernels.shape == (16, *shape)
    for branch in range(branches):
        part = kernels[..., branch * own : (branch + 1) * own]
        assert part.std() == pytest.approx(expected, rel=0.03)
        assert part.mean() == pytest.approx(0, abs=0.05 * expected)
        if branch:
            assert np.abs(part - kernels[..., :own]).mean() > 0.5 * expected


def test_the_stem_is_drawn_by_that_rule():
    block, x = InceptionBlock(filters=64), jnp.zeros((1, 4, 4, 128))
    init = quick_jit(partial(block.init, train=False))
    stem = init(jax.random.key(0), x)["params"]["stem"]["conv"]
    # 128 channels in; three branches of 64, not one of 192.
    assert stem["kernel"].std() == pytest.approx(np.sqrt(2 / (128 + 64)), rel=0.03)
    assert not stem["bias"].any()


def test_inception_order_of_branches():
    """Output channels are deep, middle, point, pooled: a change in one stays there."""
    block = InceptionBlock(filters=2)
    x = jnp.array(np.random.default_rng(0).normal(size=(1, 6, 6, 3)), jnp.float32)
    variables = quick_jit(partial(block.init, train=False))(jax.random.key(0), x)
    run = quick_jit(partial(block.apply, train=False))
    before = run(variables, x)
    assert before.shape == (1, 6, 6, 8)

    def changed(layer, channels=slice(None)):
        params = jax.tree.map(lambda a: a, variables["params"])
        bias = params[layer]["norm"]["bias"]
        params[layer]["norm"]["bias"] = bias.at[channels].add(1.0)
        after = run(variables | {"params": params}, x)
        moved = np.abs(after - before).max(axis=(0, 1, 2)) > 1e-6
        return {i // 2 for i in np.flatnonzero(moved)}

    assert changed("stem", slice(0, 2)) == {0}
    assert changed("stem", slice(2, 4)) == {1}
    assert changed("stem", slice(4, 6)) == {2}
    assert changed("deep_1") == changed("deep_2") == {0}
    assert changed("middle") == {1}
    assert changed("pooled") == {3}


# --- the same networks in Keras, with the same weights ---


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["KERAS_HOME"] = str(tmp_path_factory.mktemp("keras"))
    pytest.importorskip("keras", reason="pip install keras to test parity")
    from contestants import keras_unet  # of benchmarks/

    return keras_unet


def randomise(model, seed=0):
    """Nothing left at zero or one: kernels, biases, scales and moving statistics."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        kind, shape = weight.path.split("/")[-1], weight.shape
        if kind == "kernel":
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        elif kind in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        else:  # bias, beta, moving_mean
            value = rng.normal(0, 0.3, shape)
        weight.assign(value.astype(np.float32))


def from_keras(model):
    """Keras' weights, one by one, in our tree."""
    params, stats = {}, {}
    for layer in model.layers:
        weights = [np.asarray(weight.value) for weight in layer.weights]
        if layer.name == "head":
            params["head"] = dict(zip(("kernel", "bias"), weights, strict=True))
        elif layer.name.endswith(".conv"):
            level, unit, _ = layer.name.split(".")
            pair = dict(zip(("kernel", "bias"), weights, strict=True))
            params.setdefault(level, {}).setdefault(unit, {})["conv"] = pair
        elif layer.name.endswith(".norm"):
            level, unit, _ = layer.name.split(".")
            scale, bias, mean, var = weights
            norm = {"scale": scale, "bias": bias}
            params.setdefault(level, {}).setdefault(unit, {})["norm"] = norm
            moving = {"norm": {"mean": mean, "var": var}}
            stats.setdefault(level, {})[unit] = moving

    def side_by_side(*branches):
        return jax.tree.map(lambda *a: np.concatenate(a, axis=-1), *branches)

    for level in (*params.values(), *stats.values()):
        if "stem_deep" in level:
            stems = [level.pop(f"stem_{b}") for b in ("deep", "middle", "point")]
            level["stem"] = side_by_side(*stems)
    return {"params": params, "batch_stats": stats}


@pytest.mark.parametrize(
    "name,kernel_size", [("conv", 1), ("conv", 3), ("inception", 3)]
)
def test_parity_with_keras(keras, name, kernel_size):
    # Zeros, for speed: `randomise` draws them all.
    theirs = keras.unet(
        name, kernel_size=kernel_size, channels=3, size=32, init="zeros"
    )
    randomise(theirs)
    variables = from_keras(theirs)
    ours = make_model(name, kernel_size=kernel_size, bn_momentum=0.99)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(
        np.shape,
        shapes_of(name, kernel_size=kernel_size),
        is_leaf=lambda x: hasattr(x, "shape"),
    )
    assert theirs.count_params() == count_parameters(variables)

    images = np.random.default_rng(1).normal(0, 1, (2, 32, 32, 3)).astype(np.float32)
    trainable = [w.value for w in theirs.trainable_variables]
    moving = [w.value for w in theirs.non_trainable_variables]
    for train in (False, True):
        run = quick_jit(partial(theirs.stateless_call, training=train))
        expected, moved = run(trainable, moving, images)
        expected = np.asarray(expected)[..., 0]
        assert expected.std() > 0.05  # neither flat nor saturated: a test of something
        logits, updated = apply(ours, variables, images, train=train)
        np.testing.assert_allclose(jax.nn.sigmoid(logits), expected, atol=1e-4)
    for weight, value in zip(theirs.non_trainable_variables, moved, strict=True):
        weight.assign(value)
    after = from_keras(theirs)["batch_stats"]
    _check_gradients(theirs, ours, trainable, moving, variables, images)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4),
        after,
        updated["batch_stats"],
    )


def _check_gradients(theirs, ours, trainable, moving, variables, images):
    """Of the mean probability, weighted by a ramp, in training mode."""
    ramp = np.linspace(-1, 1, 32)

    def their_loss(trainable):
        probabilities, _ = theirs.stateless_call(
            trainable, moving, images, training=True
        )
        return (probabilities[..., 0] * ramp).mean()

    def our_loss(params):
        logits, _ = ours.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return (jax.nn.sigmoid(logits) * ramp).mean()

    expected = quick_jit(jax.grad(their_loss))(trainable)
    for weight, value in zip(theirs.trainable_variables, expected, strict=True):
        weight.assign(value)
    expected = by_path(from_keras(theirs)["params"])
    gradients = by_path(quick_jit(jax.grad(our_loss))(variables["params"]))
    assert gradients.keys() == expected.keys()
    for path, gradient in gradients.items():
        if path.endswith("conv/bias"):  # rounding noise there, zero here
            continue
        largest = np.abs(expected[path]).max()
        np.testing.assert_allclose(
            gradient, expected[path], atol=1e-3 * largest, err_msg=path
        )
