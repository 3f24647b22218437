"""Every recipe loads, passes the checks and builds; faults are found before that."""

import dataclasses
import functools
import json
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

import lungseg_jax
from lungseg_jax.models import MODELS, make_model
from lungseg_jax.models.receptive_field import receptive_field
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training import config, knobs, recipe_files
from lungseg_jax.training.knob import Knob
from lungseg_jax.training.optimizers import make_optimizer
from lungseg_jax.training.recipe_files import load_recipe
from lungseg_jax.training.recipes import without_variety
from lungseg_jax.training.scaling import check_batch
from lungseg_jax.training.schedules import make_schedule

NAMES = list(recipe_files.recipes())
ALL = [
    *NAMES,
    *(f"{n}:{v}" for n in NAMES if n != "smoke" for v in ("notebook", "full")),
]
ALL += [f"incp_snapshot:{variant}" for variant in ("scratch", "long", "phantoms")]


@pytest.mark.parametrize("name", ALL)
def test_recipe_loads_passes_the_checks_and_builds(name):
    c = load_recipe(name)
    config.check_config(c)
    assert json.loads(json.dumps(c.to_dict()))["name"] == name.replace(":", "_")
    schedule = make_schedule(total_steps=c.train.total_steps, **c.schedule)
    tx = make_optimizer(schedule, **c.optimizer)
    example = jnp.zeros((1, 16, 16, config.preprocessing_of(c).channels))
    variables = jax.eval_shape(
        lambda: make_model(**c.model).init(jax.random.key(0), example, train=False)
    )
    jax.eval_shape(tx.init, variables["params"])
    assert config.snapshot_steps(c)[-1] == c.train.total_steps


@pytest.mark.parametrize(
    "size,levels,scale,expected",
    [(128, 4, 1.5, 192), (128, 4, 1.0, 128), (100, 4, 1.0, 100), (100, 5, 1.3, 128)],
)
def test_predictions_are_made_at_a_multiple_of_the_size(size, levels, scale, expected):
    c = config.default_config()
    c.data.image_size, c.model.levels, c.evaluate.scale = size, levels, scale
    trained, predicted = (
        config.preprocessing_of(c),
        config.prediction_preprocessing_of(c),
    )
    assert trained.image_size == size
    assert predicted == dataclasses.replace(trained, image_size=expected)


@pytest.mark.parametrize("name", ["conv", "incp", "incp_snapshot"])
def test_full_recipes_end_annealed_and_see_the_whole_picture(name):
    c = load_recipe(f"{name}:full")
    schedule = make_schedule(total_steps=c.train.total_steps, **c.schedule)
    assert float(schedule(c.train.total_steps - 1)) < 1e-3 * c.schedule.peak
    fields = [
        receptive_field(make_model(**c.model.to_dict() | {"levels": levels}))
        for levels in (c.model.levels - 1, c.model.levels)
    ]
    assert fields[0] < c.data.image_size <= fields[1]


@pytest.mark.parametrize("name", ALL)
def test_no_recipe_has_an_option_without_effect(name):
    config.check_effects(load_recipe(name))


@pytest.mark.parametrize(
    "changes,message",
    [
        (
            {"schedule.name": "constant", "schedule.floor": 1e-4},
            "schedule.floor=0.0001",
        ),
        (
            {"schedule.name": "constant", "schedule.peak_decay": 0.5},
            "schedule.peak_decay=0.5",
        ),
        ({"optimizer.name": "adam", "optimizer.weight_decay": 0.1}, "weight_decay=0.1"),
        ({"model.kernel_size": 5}, "model.kernel_size=5"),
        ({"model.norm": "group", "model.bn_momentum": 0.5}, "bn_momentum=0.5"),
        (
            {"optimizer.name": "adamw", "optimizer.muon_hidden_only": False},
            "hidden_only=False",
        ),
        ({"data.extra_phantoms": 0, "data.extra_share": 0.5}, "extra_share=0.5"),
    ],
)
def test_a_new_run_refuses_options_without_effect(changes, message):
    c = config.default_config()
    c.update_from_flattened_dict(changes)
    config.check_config(c)  # runs of version 0.1 may have them
    with pytest.raises(UserError, match=message.replace(".", r"\.")) as e:
        config.check_effects(c)
    assert e.value.rule and e.value.remedy


def test_a_block_that_was_added_has_no_kernel_size(monkeypatch):
    """`make_model` gives it to conv blocks only."""
    monkeypatch.setitem(MODELS, "other", MODELS["inception"])
    c = config.default_config()
    c.model.name, c.model.kernel_size = "other", 5
    config.check_config(c)
    with pytest.raises(UserError, match=r"model\.kernel_size=5 would have no effect"):
        config.check_effects(c)


@pytest.mark.parametrize(
    "changes,rule",
    [
        ({"schedule.hold_steps": 200}, "the 200 steps of the shortest cycle"),
        (
            {"schedule.hold_steps": 90, "schedule.growth": 0.5},
            "the 86 steps of the shortest cycle",
        ),
        (
            {"schedule.hold_steps": 50, "schedule.warmup_steps": 50},
            "the 50 steps of the warm-up",
        ),
    ],
)
def test_a_new_run_changes_its_rate_within_each_cycle_and_the_warm_up(changes, rule):
    c = config.default_config()
    c.update_from_flattened_dict(changes)
    config.check_config(c)  # runs of version 0.1 may have them
    with pytest.raises(UserError, match=r"schedule\.hold_steps") as e:
        config.check_effects(c)
    assert rule in e.value.rule
    c.schedule.hold_steps = 30
    config.check_effects(c)


def test_a_new_run_has_an_epsilon():
    """Gradients of 0, as of biases before a batch norm, would be divided by 0."""
    c = config.default_config()
    c.optimizer.epsilon = 0.0
    config.check_config(c)  # runs of version 0.1 may have it
    with pytest.raises(UserError, match=r"optimizer\.epsilon=0\.0 is out of range"):
        config.check_effects(c)


def test_a_constant_rate_and_single_steps_need_not_change():
    c = config.default_config()
    c.schedule.cycles = c.train.total_steps
    config.check_effects(c)
    c.schedule.name, c.schedule.hold_steps = "constant", 1000
    config.check_effects(c)


@pytest.mark.parametrize("scale,is_on", [(0.0, False), (1.0, False), (1.5, True)])
def test_a_scale_of_one_or_below_is_off_without_hounsfield_units(scale, is_on):
    c = without_variety(config.default_config())
    c.data.preprocessing, c.augment.scale = "window", scale
    with pytest.raises(UserError, match="scale is on") if is_on else nullcontext():
        config.check_config(c)


def test_a_batch_of_one_has_no_room_for_phantoms():
    c = config.default_config()
    c.train.batch_size, c.data.extra_phantoms = 1, 10
    with pytest.raises(UserError, match="no room for phantoms"):
        check_batch(c, training_slices=9, devices=1)


def test_a_batch_may_be_all_training_slices():
    c = config.default_config()
    c.train.batch_size = 9
    check_batch(c, training_slices=9, devices=1)
    with pytest.raises(UserError, match="batch_size=9 is larger than the training"):
        check_batch(c, training_slices=8, devices=1)
    with pytest.raises(UserError) as e:
        check_batch(c, training_slices=1, devices=1)
    assert e.value.rule == "at most its 1 slice."


def test_the_three_recipes_are_the_three_networks():
    conv, incp, snapshot = (
        load_recipe(f"{name}:notebook") for name in ("conv", "incp", "incp_snapshot")
    )
    assert (conv.model.name, conv.model.kernel_size) == ("conv", 1)
    assert conv.train.total_steps == 72_000  # 2400 epochs of 30 steps
    assert incp.train.total_steps == snapshot.train.total_steps == 48_000
    assert incp.schedule.name == "constant"
    assert (snapshot.schedule.name, snapshot.schedule.cycles) == ("cosine_restarts", 8)


def test_notebook_schedule_changes_once_an_epoch():
    c = load_recipe("incp_snapshot:notebook")
    schedule = make_schedule(total_steps=c.train.total_steps, **c.schedule)
    # 200 epochs a cycle: epoch e runs at 1e-3/2 (1 + cos(pi e/200)) throughout.
    assert schedule(0) == schedule(29) == pytest.approx(1e-3)
    assert schedule(30) == schedule(59) == pytest.approx(9.99938e-4, rel=1e-5)
    assert schedule(3000) == pytest.approx(5e-4)
    assert schedule(5999) == pytest.approx(6.1684e-8, rel=1e-3)
    assert schedule(6000) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    "key,value,words",
    [
        ("model.name", "vnet", "conv, inception"),
        ("model.dtype", "float16", "bfloat16"),
        ("model.kernel_size", 2, "odd"),
        ("train.loss", "mse", "bce_dice"),
        ("train.batch_size", 0, "train.batch_size=0"),
        ("train.accumulate", 3, "train.accumulate=3"),
        ("model.precision", "low", "default, high, highest"),
        ("schedule.cycles", 0, "schedule.cycles=0"),
        ("schedule.cycles", 601, "cycle without a step"),
        ("schedule.warmup_steps", 200, "200 steps"),
        ("schedule.floor", 1.0, "below the peak of the last cycle, 0.005"),
        ("schedule.floor", 0.005, "below the peak of the last cycle, 0.005"),
        ("schedule.peak", -1.0, "schedule.peak=-1.0"),
        ("data.window_hu", (400.0, -1000.0), "two increasing numbers"),
        ("data.image_size", 8, "data.image_size=8"),
        ("model.levels", 9, "model.levels=9"),
        ("model.norm", "layer", "batch, group, instance"),
        ("data.placement", "disk", "auto, copied, sharded, streamed"),
        ("data.test_fraction", 1.0, "data.test_fraction=1.0"),
        ("data.test_fraction", 0.0, "data.test_fraction=0.0"),
        ("evaluate.threshold", 1.5, "evaluate.threshold=1.5"),
        ("train.total_steps", "many", "train.total_steps='many'"),
        ("train.total_steps", 1.5, "train.total_steps=1.5"),
        ("train.total_steps", 1.5, "an integer from 1 to 1000000000."),
        ("evaluate.threshold", "x", "a number from 0.0 to 1.0."),
        ("augment.flip_lr", 1, "true or false."),
        ("train.total_steps", True, "train.total_steps=True"),
        ("augment.flip_lr", 1, "augment.flip_lr=1"),
        ("name", None, "config.name=None"),
        ("schedule.peak", float("nan"), "schedule.peak=nan"),
        ("data.window_hu", (-float("inf"), 400.0), "from -20000 to 1e9"),
        ("data.window_hu", (0.0, 1e-300), "at least 0.001 apart"),
        ("data.window_hu", (0, 10**400), "from -20000 to 1e9"),
        ("data.window_hu", (False, True), "two increasing numbers"),
    ],
)
def test_refuses_values_out_of_range(key, value, words):
    c = (
        config.default_config().to_dict()
    )  # a recipe may build one with values of any type
    *parents, last = key.split(".")
    functools.reduce(lambda tree, part: tree[part], parents, c)[last] = value
    c = ConfigDict(c)
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        config.check_config(c)


@pytest.mark.parametrize(
    "levels,norm,smallest", [(4, "batch", 16), (6, "group", 64), (4, "instance", 32)]
)
def test_refuses_more_levels_than_the_picture_has(levels, norm, smallest):
    c = config.default_config()
    c.model.levels, c.model.norm, c.data.image_size = levels, norm, smallest
    config.check_config(c)
    c.data.image_size = smallest - 1
    with pytest.raises(UserError, match=r"model\.levels|image_size=15") as e:
        config.check_config(c)
    assert str(smallest) in e.value.rule


def test_refuses_a_scale_that_leaves_predictions_too_small():
    c = config.default_config()
    c.model.levels, c.model.norm, c.data.image_size = 5, "instance", 64
    c.evaluate.scale = 0.5
    with pytest.raises(UserError, match=r"evaluate\.scale=0\.5 makes a side of 32 px"):
        config.check_config(c)
    c.model.norm = "batch"
    config.check_config(c)


def test_unknown_variant_lists_the_known():
    with pytest.raises(UserError, match=":notebook, :full") as caught:
        load_recipe(f"{NAMES[0]}:fast")
    assert ":fast" in caught.value.what


def test_differences_leave_out_cosmetic_knobs():
    old, new = config.default_config(), config.default_config()
    new.model.filters = 4
    new.name, new.cache_dir = "renamed", "elsewhere"
    new.train.log_every = 3
    stored = json.loads(json.dumps(old.to_dict()))  # tuples come back as lists
    assert config.differences(stored, new.to_dict()) == ["model.filters: 8 -> 4"]
    assert config.differences(stored, old.to_dict()) == []


def test_a_recipe_that_misspells_a_knob_is_an_error():
    c = config.default_config()
    with pytest.raises(AttributeError, match="batch_size"):
        c.train.batchsize = 4


def test_a_config_built_by_hand_lists_missing_and_unknown_knobs():
    c = config.default_config().to_dict()
    del c["model"]["filters"]
    c["train"]["batchsize"] = 4
    with pytest.raises(UserError) as caught:
        config.check_config(ConfigDict(c))
    assert "model.filters is missing" in caught.value.what
    assert "train.batchsize is unknown" in caught.value.what


def test_an_integer_is_accepted_for_a_float():
    c = config.default_config().to_dict()
    c["schedule"]["peak"], c["data"]["window_hu"] = 1, [0, 255]
    config.check_config(ConfigDict(c))


def test_refuses_an_unknown_home_folder():
    c = config.default_config()
    c.data.dir = "~no-such-user/data"
    with pytest.raises(UserError, match="~no-such-user"):
        config.default_workdir(c)


@pytest.fixture
def added_knob(monkeypatch):
    """A knob that a newer version has added."""
    knob = Knob("train.added", 2, "added after 0.1", (0, 9), before=0)
    monkeypatch.setattr(knobs, "KNOBS", (*knobs.KNOBS, knob))


def test_an_added_knob_is_as_before_in_an_old_config(added_knob):
    written = config.default_config().to_dict()
    assert written["train"].pop("added") == 2
    upgraded = config.upgrade_config(written, "0.1")
    assert upgraded.train.added == 0
    config.check_config(upgraded)
    assert config.differences(written, upgraded.to_dict()) == [
        "train.added: absent -> 0"
    ]


def test_upgrading_keeps_the_values_that_were_written(added_knob):
    written = config.default_config()
    written.train.added, written.model.filters = 5, 3
    stored = json.loads(json.dumps(written.to_dict()))  # tuples become lists
    upgraded = config.upgrade_config(stored, "0.2")
    assert config.differences(written.to_dict(), upgraded.to_dict()) == []
    assert (upgraded.train.added, upgraded.model.filters) == (5, 3)


def test_an_unknown_knob_is_refused_with_the_version_that_wrote_it():
    written = config.default_config().to_dict()
    written["train"]["removed"] = 1
    with pytest.raises(UserError, match="train.removed") as e:
        config.upgrade_config(written, "0.9")
    assert e.value.rule == "the run was written by lungseg_jax 0.9."
    assert "lungseg_jax 0.9 or newer" in e.value.remedy
    with pytest.raises(UserError, match="train.removed") as e:
        config.upgrade_config(written, lungseg_jax.__version__)
    assert "import the module that adds them" in e.value.remedy


def test_a_loaded_recipe_is_a_locked_copy_that_can_be_changed():
    c = load_recipe("smoke")
    c.train.total_steps += 1
    assert load_recipe("smoke").train.total_steps == c.train.total_steps - 1
    with pytest.raises(AttributeError, match="total_step"):
        c.train.total_step = 5
    with pytest.raises(UserError, match="no config file smok was found") as e:
        load_recipe("smok")
    assert e.value.remedy == "--config=smoke."


def test_a_recipe_that_returns_something_else_is_an_error(tmp_path):
    file = tmp_path / "recipe.py"
    file.write_text("def get_config(variant=''):\n    return {'seed': 1}\n")
    with pytest.raises(UserError, match="the config is a dict"):
        config.check_config(load_recipe(str(file)))
