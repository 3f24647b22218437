"""Base configurations of the recipes in configs/."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from lungseg_jax.data.augmentation.transforms import HU_GEOMETRY, TRANSFORMS
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.config import default_config

NOTEBOOK_EPOCH = 30  # steps: 240 slices in batches of 8


def without_variety(c: ConfigDict) -> ConfigDict:
    """Turn off, in place, all augmentation but small affine maps and flips."""
    for name in (*TRANSFORMS, *HU_GEOMETRY, "turn", "crop"):
        c.augment[name] = 0.0
    return c


def laptop() -> ConfigDict:
    """Return a run from scratch, of five to nine minutes on two CPU cores.

    The time includes data preparation and compilation. Training at 128 pixels shows many
    slices in that time; predictions are made at 192 pixels, which is within the scales that
    augmentation has shown. Rare changes are drawn less often: so few steps learn little
    from them.
    """
    c = _varied()
    c.data.image_size = 128
    c.data.extra_phantoms = 240
    c.train.total_steps = 1680  # cycles end after 960, 1440 and 1680
    c.train.save_every = c.train.validate_every = 240
    c.evaluate.scale = 1.5
    for name in TRANSFORMS:
        c.augment[name] *= 0.6
    return c


def fine_tuning() -> ConfigDict:
    """Return a run of five to nine minutes that starts from the weights of the package.

    They have seen the variety already, so that few steps, of larger slices, suffice.
    """
    c = laptop()
    c.init = "pretrained"
    c.data.image_size = 160
    c.schedule.peak = 2e-3
    c.train.total_steps = 1200  # cycles end after 686, 1029 and 1200
    return c


def long() -> ConfigDict:
    """Return a run of half an hour on two CPU cores, with rarer pictures in it.

    It starts from the weights of the package, as `fine_tuning` does. In so many updates on
    slices with lung, it would forget that there are others.
    """
    c = _varied()
    c.init = "pretrained"
    c.data.image_size = 160
    c.data.extra_phantoms = 600
    c.augment.scale = 2.0
    c.augment.without_lung = 0.01
    c.schedule.peak = 3e-3
    c.train.total_steps = 4200  # cycles end after 2400, 3600 and 4200
    c.train.save_every = c.train.validate_every = 300
    c.train.log_every = 50
    c.evaluate.scale = 1.5
    return c


def phantoms_only() -> ConfigDict:
    """Return the run on phantoms whose weights can be shipped: they show no patient.

    Half an hour to an hour on two CPU cores.
    """
    c = _varied()
    c.data.phantom_slices = 6000
    c.data.phantom_seed = 1000  # other phantoms than any run that starts from them
    c.data.validation_fraction = c.data.test_fraction = 0.01
    c.data.image_size = 160
    c.augment.scale = 2.0
    c.augment.least_air = 0.0  # slices that have no lung are among the phantoms
    c.train.total_steps = 8400  # cycles end after 4800, 7200 and 8400
    c.train.save_every = c.train.validate_every = 600
    c.train.log_every = 50
    c.evaluate.scale = 1.5
    return c


def notebook() -> ConfigDict:
    """Return the protocol of the three Keras notebooks, damaged pixels included."""
    c = without_variety(default_config())
    c.data.preprocessing = "seed"
    c.data.image_size = 512
    c.data.validation_fraction = 0.0
    c.data.leave_out_air = False
    c.augment.rotation_deg = 0.0
    c.model.bn_momentum = 0.99
    c.optimizer.name = "adam"
    c.optimizer.epsilon = 1e-7
    c.schedule.name = "constant"
    c.schedule.cycles = 1
    c.schedule.peak = 1e-3
    c.schedule.hold_steps = NOTEBOOK_EPOCH
    c.train.total_steps = 1600 * NOTEBOOK_EPOCH
    c.train.loss = "bce"
    c.train.outlier_knee = 0.0
    c.train.population_stats = False
    c.train.save_every = c.train.validate_every = 20 * NOTEBOOK_EPOCH
    c.evaluate.threshold = 200 / 255
    c.evaluate.mirror_members = False
    return c


def accelerator() -> ConfigDict:
    """Return a long run at full resolution in bfloat16, for a GPU or TPU.

    The rate of every cycle is annealed to zero, and the network is deep enough for a block
    of reach 2 to see the whole picture. Each device has 16 slices in an update, instead of
    a share of them; with more than one, rates and steps follow (`training.scaling`).
    """
    c = default_config()
    c.data.image_size = 512
    c.data.extra_phantoms = 2000
    c.model.levels = 6  # a receptive field of 828 pixels
    c.model.dtype = "bfloat16"
    c.augment.rotation_deg = 10.0
    c.augment.without_lung = 0.01  # as in `long`
    c.train.batch_size = c.train.batch_per_device = 16
    c.train.outlier_knee = 1.0  # see `_varied`
    c.train.total_steps = 12_000
    c.train.save_every = c.train.validate_every = 500
    c.train.log_every = 50
    c.train.steps_per_dispatch = 10
    c.schedule.cycles = 6
    c.schedule.warmup_steps = 200
    c.evaluate.batch_size = 16
    return c


def recipe(
    name: str, variant: str, variants: Mapping[str, Callable[[], ConfigDict]]
) -> ConfigDict:
    """Return the base configuration of a variant, with its name.

    Args:
      name: of the recipe.
      variant: what follows the colon in `--config=FILE.py:VARIANT`, or "".
      variants: the function that makes each variant's base, by name.

    Raises:
      UserError: the recipe has no such variant.
    """
    if variant not in variants:
        known = ", ".join(f":{name}" for name in variants if name)
        raise UserError(
            f"the recipe has no variant :{variant}.",
            rule=f"{known}, or no variant." if known else "it has no variants.",
        )
    c = variants[variant]()
    c.name = f"{name}_{variant}" if variant else name
    return c


def _varied() -> ConfigDict:
    """Return what the runs on two CPU cores have in common."""
    c = default_config()
    c.train.batch_size = 8
    c.train.outlier_knee = 1.0  # lungs with painted diseases have high losses at first
    # One long cycle, then two short ones with lower peaks: every snapshot is good.
    c.schedule.growth = 0.5
    c.schedule.peak_decay = 0.5
    return c
