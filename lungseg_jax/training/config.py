"""The configuration of a run: defaults, checks, and what is derived from it."""

import dataclasses
import os
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import lungseg_jax
from lungseg_jax.data.augmentation.transforms import HU_GEOMETRY, TRANSFORMS
from lungseg_jax.data.preprocessing import Preprocessing
from lungseg_jax.runtime.errors import UserError, bullet_list, unknown_name
from lungseg_jax.runtime.files import folder_path
from lungseg_jax.training import knobs
from lungseg_jax.training.knob import out_of_range
from lungseg_jax.training.knobs import flat, nested
from lungseg_jax.training.schedules import cycle_ends


def default_config() -> ConfigDict:
    """Return the defaults of all knobs: the inception U-Net with cosine restarts.

    Recipes, such as those of `lungseg train`, change some of them.
    """
    return nested(knobs.defaults())


def check_config(c: ConfigDict) -> None:
    """Check a configuration before anything is built.

    Raises:
      UserError: the first fault, with the values that are allowed.
    """
    _check_names_and_types(c)
    values = flat(c.to_dict())
    for knob in knobs.all_knobs():
        if knob.choices and values[knob.name] not in knob.choices:
            raise unknown_name(f"config.{knob.name}", values[knob.name], knob.choices)
    for knob in knobs.all_knobs():
        knob.check_range(values[knob.name])
    if c.model.kernel_size % 2 == 0:
        raise out_of_range("model.kernel_size", c.model.kernel_size, "odd")
    _check_levels(c)
    batch = "batch_per_device" if c.train.batch_per_device else "batch_size"
    if c.train[batch] % c.train.accumulate:
        rule = f"a divisor of train.{batch}={c.train[batch]}"
        raise out_of_range("train.accumulate", c.train.accumulate, rule)
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", c.name):
        raise out_of_range("name", repr(c.name), "letters, digits, . _ and -")
    if (c.data.fold + 1) * c.data.test_fraction > 1 + 1e-9 and c.data.fold:
        rule = f"(fold + 1) x data.test_fraction={c.data.test_fraction:g} is at most 1"
        raise out_of_range("data.fold", c.data.fold, rule)
    _check_window(c.data.window_hu)
    _check_augmentation(c)
    _check_schedule(c)


def check_effects(c: ConfigDict) -> None:
    """Check that options that were changed have their effect; not all can be checked.

    It is for new runs: older versions accepted such options.

    Args:
      c: passed `check_config`.

    Raises:
      UserError: the first option that would be ignored, and what it belongs to; an epsilon
        of 0; or rates that are held for so long that they miss their lowest, or the
        warm-up.
    """
    values = flat(c.to_dict())
    defaults = knobs.defaults()
    is_constant = c.schedule.name == "constant"
    # Options that are ignored if a condition holds, with what they belong to.
    ignored = {
        "schedule.floor": (is_constant, "schedule.name=cosine_restarts"),
        # Recipes set it, and with one cycle no schedule uses it.
        "schedule.peak_decay": (
            is_constant and c.schedule.cycles > 1,
            "schedule.name=cosine_restarts",
        ),
        "optimizer.weight_decay": (
            c.optimizer.name == "adam",
            "optimizer.name=adamw or muon",
        ),
        "model.kernel_size": (c.model.name != "conv", "model.name=conv"),
        "optimizer.muon_hidden_only": (
            c.optimizer.name != "muon",
            "optimizer.name=muon",
        ),
        "data.extra_share": (not c.data.extra_phantoms, "data.extra_phantoms=N"),
        "model.bn_momentum": (c.model.norm != "batch", "model.norm=batch"),
        "model.bn_per_device": (c.model.norm != "batch", "model.norm=batch"),
    }
    for name, (is_ignored, owner) in ignored.items():
        if is_ignored and values[name] != defaults[name]:
            raise UserError(
                f"config.{name}={values[name]} would have no effect.",
                rule=f"it belongs to config.{owner}.",
                remedy=f"set --config.{name}={defaults[name]}.",
            )
    if c.optimizer.epsilon == 0:
        # The gradient of the biases before a batch norm is 0, and so is its moment.
        raise out_of_range("optimizer.epsilon", c.optimizer.epsilon, "above 0")
    _check_hold(c)


def upgrade_config(written: Mapping[str, Any], version: str) -> ConfigDict:
    """Complete a configuration that an older version wrote.

    Args:
      written: the content of config.json.
      version: the version of lungseg_jax that wrote it, for messages.

    Raises:
      UserError: it has a knob that is unknown here.
    """
    values = flat(written)
    unknown = sorted(values.keys() - knobs.defaults().keys())
    if unknown:
        raise UserError(
            f"the run has options that are unknown here:\n{bullet_list(unknown)}",
            rule=f"the run was written by lungseg_jax {version}.",
            remedy=f"use it with lungseg_jax {version} or newer."
            if version != lungseg_jax.__version__
            else "import the module that adds them, or write their rows into the package.",
        )
    return nested(knobs.before_values() | values)


def snapshot_steps(c: ConfigDict) -> tuple[int, ...]:
    """Return the steps after which the run saves a snapshot."""
    return cycle_ends(
        total_steps=c.train.total_steps,
        cycles=c.schedule.cycles,
        growth=c.schedule.growth,
    )


def micro_batch_size(c: ConfigDict) -> int:
    """Return the slices that the network sees at once in training, over all devices."""
    return c.train.batch_size // c.train.accumulate


def data_of(c: ConfigDict) -> dict[str, Any]:
    """Return the arguments of `load_dataset` that say which data a run is trained on."""
    return {
        "folder": folder_path(c.data.dir) if c.data.dir else None,
        "phantom_slices": c.data.phantom_slices,
        "phantom_seed": c.data.phantom_seed,
    }


def preprocessing_of(c: ConfigDict) -> Preprocessing:
    """Return the preprocessing of the training."""
    return Preprocessing(
        kind=c.data.preprocessing,
        image_size=c.data.image_size,
        window_hu=tuple(c.data.window_hu),
    )


def prediction_preprocessing_of(c: ConfigDict) -> Preprocessing:
    """Return that of predictions, whose side is a multiple of the deepest stride."""
    stride = 2**c.model.levels
    size = c.data.image_size
    if c.evaluate.scale != 1:
        size = max(1, round(size * c.evaluate.scale / stride)) * stride
    return dataclasses.replace(preprocessing_of(c), image_size=size)


def default_workdir(c: ConfigDict) -> Path:
    """Return runs/<recipe>-<data folder>, so that each dataset gets its own run."""
    data = "phantom"
    if c.data.dir:  # resolved, so that "." and links have a name
        data = os.path.basename(os.path.realpath(folder_path(c.data.dir)))
    return Path("runs") / f"{c.name}-{data}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the knobs in which two configurations differ, as "key: old -> new".

    Cosmetic knobs are left out.
    """
    old, new = flat(old), flat(new)
    cosmetic = {knob.name for knob in knobs.all_knobs() if knob.is_cosmetic}
    return [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in sorted((old.keys() | new.keys()) - cosmetic)
        if old.get(key) != new.get(key)
    ]


def _check_names_and_types(c: ConfigDict) -> None:
    """Check a config that a recipe may have built by itself."""
    rule = "a recipe starts from training.recipes or default_config()."
    if not isinstance(c, ConfigDict):
        what = f"the config is a {type(c).__name__}, not a ConfigDict."
        raise UserError(what, rule=rule)
    given = flat(c.to_dict())
    known = {knob.name: knob for knob in knobs.all_knobs()}
    wrong = [f"{key} is unknown" for key in sorted(given.keys() - known.keys())]
    wrong += [f"{key} is missing" for key in sorted(known.keys() - given.keys())]
    if wrong:
        raise UserError(
            f"the config does not have the expected keys:\n{bullet_list(wrong)}",
            rule=rule,
        )
    for key, knob in known.items():
        value, default = given[key], knob.default
        types = (int, float) if isinstance(default, float) else type(default)
        if isinstance(default, tuple):
            types = list  # as `flat` has it
        # To Python a bool is an int; for us it is not a number.
        is_mixed_up = isinstance(value, bool) != isinstance(default, bool)
        if not isinstance(value, types) or is_mixed_up:
            raise out_of_range(key, repr(value), knob.rule)


def _check_levels(c: ConfigDict) -> None:
    """Check that the deepest features have a pixel, or two for a norm over an image."""
    smallest = 2 ** (c.model.levels + (c.model.norm == "instance"))
    predicted = prediction_preprocessing_of(c).image_size
    if c.data.image_size < smallest:
        small = f"config.data.image_size={c.data.image_size} is small"
    elif predicted < smallest:
        scale = c.evaluate.scale
        small = f"config.evaluate.scale={scale} makes a side of {predicted} px"
    else:
        return
    raise UserError(
        f"config.model.levels={c.model.levels} is too deep: {small}.",
        rule=f"with {c.model.norm} norm, a side of at least {smallest} px.",
        remedy=f"lower config.model.levels, or raise {small.partition('=')[0]}.",
    )


def _check_window(window) -> None:
    numbers = all(type(value) in (int, float) for value in window)
    if not numbers or len(window) != 2 or not window[0] < window[1]:
        raise out_of_range("data.window_hu", window, "two increasing numbers")
    if not -20e3 <= window[0] < window[1] <= 1e9 or window[1] - window[0] < 1e-3:
        rule = "two numbers from -20000 to 1e9, at least 0.001 apart"
        raise out_of_range("data.window_hu", window, rule)


def _check_augmentation(c: ConfigDict) -> None:
    if c.data.preprocessing == "hu":
        return
    on = [name for name in (*HU_GEOMETRY, *TRANSFORMS) if c.augment[name]]
    if c.augment.scale <= 1:  # no change of size
        on = [name for name in on if name != "scale"]
    if on:
        raise UserError(
            f"augment.{on[0]} is on, and data.preprocessing={c.data.preprocessing!r}.",
            rule="diseases and scanners are imitated in Hounsfield units.",
            remedy='data.preprocessing="hu", or 0 for ' + ", ".join(on) + ".",
        )


def _check_schedule(c: ConfigDict) -> None:
    last_peak = c.schedule.peak * c.schedule.peak_decay ** (c.schedule.cycles - 1)
    if c.schedule.floor >= last_peak:
        rule = f"below the peak of the last cycle, {last_peak:.2g}"
        raise out_of_range("schedule.floor", c.schedule.floor, rule)
    try:
        ends = snapshot_steps(c)
    except ValueError as e:
        raise UserError(
            str(e),
            rule="each cycle has at least one step.",
            remedy="raise config.train.total_steps or lower config.schedule.cycles.",
        ) from e
    if c.schedule.warmup_steps >= ends[0]:
        raise UserError(
            f"schedule.warmup_steps={c.schedule.warmup_steps} fills the first cycle.",
            rule=f"fewer than its {ends[0]} steps.",
        )


def _check_hold(c: ConfigDict) -> None:
    """Check that the rate changes within each cycle, and within the warm-up.

    It would stay at the peak in a cycle that ends in a snapshot, and at 0.0 in a warm-up.
    """
    parts = {}
    if c.schedule.name == "cosine_restarts":
        ends = (0, *snapshot_steps(c))
        parts["shortest cycle"] = min(stop - start for start, stop in pairwise(ends))
    if c.schedule.warmup_steps:
        parts["warm-up"] = c.schedule.warmup_steps
    for part, steps in parts.items():
        if c.schedule.hold_steps > 1 and c.schedule.hold_steps >= steps:
            rule = f"fewer than the {steps} steps of the {part}, or 1"
            raise out_of_range("schedule.hold_steps", c.schedule.hold_steps, rule)
