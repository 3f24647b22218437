"""Every knob once, and what a set of them must satisfy before anything is built."""

import os
import re
from pathlib import Path

from ml_collections import ConfigDict

from lungseg_jax.data.preprocessing import PREPROCESSING
from lungseg_jax.models import MODELS
from lungseg_jax.runtime.errors import UserError, unknown_name
from lungseg_jax.runtime.files import user_path
from lungseg_jax.training.losses import LOSSES
from lungseg_jax.training.optimizers import OPTIMIZERS
from lungseg_jax.training.schedules import SCHEDULES, cycle_ends

# Knobs that change where things lie or what is printed, but no number of a run.
COSMETIC = ("cache_dir", "data.dir", "train.log_every")


def default_config() -> ConfigDict:
    """The inception U-Net with cosine restarts; recipes change what differs."""
    c = ConfigDict()
    c.name = "default"  # of the recipe; names the run folder
    c.seed = 0  # of weights, order and augmentation
    c.cache_dir = ""  # prepared data, compiled programs; empty: ~/.cache/lungseg_jax

    c.data = data = ConfigDict()
    data.dir = ""  # holds 2d_images/ and 2d_masks/; empty: the phantom dataset
    data.phantom_slices = 240
    data.phantom_seed = 0
    data.image_size = 256  # side of the network's input; scores are at full size
    data.preprocessing = "window"  # or "seed": as the notebooks damaged it
    data.window_hu = (-1000.0, 400.0)  # clipped to this, scaled to [0, 1]
    data.soft_masks = True  # train on the share of lung in a pixel, not on 0 or 1
    data.test_fraction = 0.1  # with split_seed 3: the notebooks' 27 of 267
    data.validation_fraction = 0.1  # 0.0 is the notebooks' split
    data.split_seed = 3

    c.augment = augment = ConfigDict()
    augment.zoom = 0.1  # each axis by 0.9 to 1.1
    augment.shift = 0.1  # each axis by up to a tenth of it
    augment.rotation_deg = 5.0
    augment.flip_lr = True
    augment.flip_ud = True

    c.model = model = ConfigDict()
    model.name = "inception"  # or "conv"
    model.filters = 8  # of the first level
    model.kernel_size = 3  # of conv blocks; 1 in the notebook
    model.dtype = "float32"  # of the computation; or "bfloat16"
    model.bn_momentum = 0.9

    c.optimizer = optimizer = ConfigDict()
    optimizer.name = "muon"  # or "adamw", "adam"
    optimizer.weight_decay = 1e-4  # of muon and adamw
    optimizer.epsilon = 1e-8  # of Adam; Keras has 1e-7
    optimizer.clip_norm = 0.0  # largest global gradient norm; 0.0: no clipping

    c.schedule = schedule = ConfigDict()
    schedule.name = "cosine_restarts"  # or "constant"
    schedule.peak = 5e-3  # learning rate at the start of a cycle
    schedule.cycles = 3  # each ends with a snapshot
    schedule.warmup_steps = 0  # linear rise at the start of the first cycle
    schedule.growth = 1.0  # each cycle is this much longer than the one before
    schedule.peak_decay = 1.0  # and starts at this many times its rate
    schedule.hold_steps = 1  # the rate changes every so many steps
    schedule.floor = 0.0  # learning rate that the cosine falls towards

    c.train = train = ConfigDict()
    train.total_steps = 600
    train.batch_size = 8
    train.loss = "bce_dice"  # or "bce", "soft_dice"
    train.outlier_knee = 0.1  # image losses above it count less; 0.0: none does
    train.population_stats = True  # re-estimate batch statistics at snapshots
    train.save_every = 100  # steps; snapshots are saved as well
    train.validate_every = 100  # steps, at the network's size
    train.log_every = 10  # steps
    train.steps_per_dispatch = 1  # updates in one call; more is for accelerators alone

    c.evaluate = evaluate = ConfigDict()
    evaluate.threshold = 0.5  # lung where the probability is above it
    evaluate.batch_size = 4
    return c.lock()  # a recipe that misspells a knob is an error


def check_config(c: ConfigDict) -> None:
    """Refuses what cannot run, and says what can.

    Raises:
      UserError: the first fault.
    """
    _check_knobs(c)
    for kind, name, known in (
        ("model.name", c.model.name, MODELS),
        ("model.dtype", c.model.dtype, ("float32", "bfloat16")),
        ("train.loss", c.train.loss, LOSSES),
        ("schedule.name", c.schedule.name, SCHEDULES),
        ("optimizer.name", c.optimizer.name, OPTIMIZERS),
        ("data.preprocessing", c.data.preprocessing, PREPROCESSING),
    ):
        if name not in known:
            raise unknown_name(f"config.{kind}", name, known)
    for key, low, high in _RANGES:
        value = _get(c, key)
        if not low <= value <= high:
            raise _out_of_range(key, value, f"from {low} to {high}")
    if c.model.kernel_size % 2 == 0:
        raise _out_of_range("model.kernel_size", c.model.kernel_size, "odd")
    window = c.data.window_hu
    numbers = all(type(value) in (int, float) for value in window)
    if not numbers or len(window) != 2 or not window[0] < window[1]:
        raise _out_of_range("data.window_hu", window, "two numbers that rise")
    if not -1e9 <= window[0] < window[1] <= 1e9 or window[1] - window[0] < 1e-3:
        rule = "two numbers from -1e9 to 1e9, 0.001 or more apart"
        raise _out_of_range("data.window_hu", window, rule)
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", c.name):
        raise _out_of_range("name", repr(c.name), "letters, digits, . _ and -")
    last_peak = c.schedule.peak * c.schedule.peak_decay ** (c.schedule.cycles - 1)
    if c.schedule.floor >= last_peak:
        rule = f"below the peak of the last cycle, {last_peak:.2g}"
        raise _out_of_range("schedule.floor", c.schedule.floor, rule)
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


def check_data_and_devices(
    c: ConfigDict, *, dtype: str, training_slices: int, devices: int
) -> None:
    """Refuses settings that do not fit the data or the machine.

    Args:
      c: passed `check`.
      dtype: of the images.
      training_slices: in the training split.
      devices: that share a batch.

    Raises:
      UserError: a batch that cannot be filled or shared out over the devices, or a
        window of Hounsfield units for 8-bit pictures.
    """
    window = tuple(c.data.window_hu)
    if c.data.preprocessing == "window" and dtype == "uint8" and window[0] < 0:
        raise UserError(
            f"the images are 8-bit, and data.window_hu={window} is for CT values.",
            rule="the window lies in the values of the images.",
            remedy="--config.data.window_hu=0,255.",
        )
    size = c.train.batch_size
    if size > training_slices:
        raise UserError(
            f"train.batch_size={size} is larger than the training split.",
            rule=f"at most its {training_slices} slices.",
            remedy=f"--config.train.batch_size={training_slices} or less.",
        )
    if size % devices:
        low = size // devices * devices
        near = [str(s) for s in (low, low + devices) if 0 < s <= training_slices]
        raise UserError(
            f"train.batch_size={size} cannot be shared out over {devices} devices.",
            rule=f"a multiple of {devices}.",
            remedy=f"try {', '.join(near)}." if near else "use fewer devices.",
        )


def knobs() -> list[str]:
    """The name of every knob, as "train.batch_size"."""
    return list(_flat(default_config().to_dict()))


def snapshot_steps(c: ConfigDict) -> tuple[int, ...]:
    """The steps after which the run has a snapshot."""
    return cycle_ends(
        total_steps=c.train.total_steps,
        cycles=c.schedule.cycles,
        growth=c.schedule.growth,
    )


def preprocessing(c: ConfigDict) -> dict:
    """The keywords of `image_to_network`."""
    return {
        "preprocessing": c.data.preprocessing,
        "image_size": c.data.image_size,
        "window_hu": tuple(c.data.window_hu),
    }


def default_workdir(c: ConfigDict) -> Path:
    """runs/<recipe>-<data folder>, so that other data go elsewhere."""
    data = "phantom"
    if c.data.dir:  # its own name where it is a link or "."
        data = os.path.basename(os.path.realpath(user_path(c.data.dir)))
    return Path("runs") / f"{c.name}-{data}"


def differences(old: dict, new: dict) -> list[str]:
    """The knobs in which two resolved configurations differ, "key: old -> new"."""
    old, new = _flat(old), _flat(new)
    return [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in sorted(old.keys() | new.keys())
        if key not in COSMETIC and old.get(key) != new.get(key)
    ]


_RANGES = (
    ("data.phantom_slices", 3, 100_000),
    ("data.image_size", 16, 4096),
    ("data.test_fraction", 1e-6, 0.9),  # a run is always scored
    ("data.validation_fraction", 0.0, 0.9),
    ("data.split_seed", 0, 2**32 - 1),
    ("data.phantom_seed", 0, 2**32 - 1),
    ("seed", 0, 2**31 - 1),
    ("augment.zoom", 0.0, 0.9),
    ("augment.shift", 0.0, 0.9),
    ("augment.rotation_deg", 0.0, 180.0),
    ("model.filters", 1, 1024),
    ("model.kernel_size", 1, 15),
    ("model.bn_momentum", 0.0, 0.9999),
    ("optimizer.weight_decay", 0.0, 1.0),
    ("optimizer.clip_norm", 0.0, 1e9),
    ("schedule.peak", 1e-9, 10.0),
    ("schedule.floor", 0.0, 10.0),
    ("schedule.cycles", 1, 10_000),
    ("schedule.growth", 0.01, 100.0),
    ("schedule.peak_decay", 0.01, 1.0),
    ("schedule.hold_steps", 1, 10**9),
    ("optimizer.epsilon", 0.0, 1.0),
    ("schedule.warmup_steps", 0, 10**9),
    ("train.total_steps", 1, 10**9),
    ("train.outlier_knee", 0.0, 1e3),
    ("train.batch_size", 1, 100_000),
    ("train.save_every", 1, 10**9),
    ("train.validate_every", 1, 10**9),
    ("train.log_every", 1, 10**9),
    ("train.steps_per_dispatch", 1, 10_000),
    ("evaluate.threshold", 0.0, 1.0),
    ("evaluate.batch_size", 1, 100_000),
)


def _check_knobs(c: ConfigDict) -> None:
    """A recipe may have built a ConfigDict of its own."""
    given, known = _flat(c.to_dict()), _flat(default_config().to_dict())
    wrong = [f"  {key} is unknown" for key in sorted(given.keys() - known.keys())]
    wrong += [f"  {key} is missing" for key in sorted(known.keys() - given.keys())]
    if wrong:
        raise UserError(
            "the config has not the keys that are known here:\n" + "\n".join(wrong),
            rule="a recipe starts from lungseg_jax.training.recipes or config.default().",
        )
    for key, like in known.items():
        kind = (int, float) if isinstance(like, float) else type(like)
        # A bool is an int to Python, and no number to us.
        is_switch = isinstance(given[key], bool)
        if not isinstance(given[key], kind) or is_switch != isinstance(like, bool):
            kind = type(like).__name__
            raise _out_of_range(key, repr(given[key]), f"{kind}, as {like!r}")


def _get(c: ConfigDict, key: str):
    for part in key.split("."):
        c = c[part]
    return c


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:  # JSON has lists where Python has tuples
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _out_of_range(key: str, value, rule: str) -> UserError:
    return UserError(f"config.{key}={value} is out of range.", rule=f"{rule}.")
