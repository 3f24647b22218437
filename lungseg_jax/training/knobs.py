"""The table of all options of a run, to which TRANSFORMS adds the last rows.

Defaults, checks, `--help` and docs/reference/configuration.md follow from it, the last two
by docs/generate_reference.py.
"""

from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from lungseg_jax.data.augmentation.transforms import TRANSFORMS
from lungseg_jax.data.preprocessing import CHANNELS
from lungseg_jax.models import LIMITS, MODELS
from lungseg_jax.models.norms import NORMS
from lungseg_jax.models.unet import DTYPES, PRECISIONS
from lungseg_jax.training.knob import Knob, shown
from lungseg_jax.training.losses import LOSSES
from lungseg_jax.training.optimizers import OPTIMIZERS
from lungseg_jax.training.placement import AUTO, PLACEMENTS
from lungseg_jax.training.schedules import SCHEDULES

LARGE = 10**9
KNOBS: tuple[Knob, ...] = (
    Knob(
        "name",
        "default",
        "name of the recipe, part of the run folder's name",
        is_cosmetic=True,
    ),
    Knob("seed", 0, "seed of weights, data order and augmentation", (0, 2**31 - 1)),
    Knob(
        "init",
        "",
        "run or bundle whose last network the training starts from; empty: random weights",
        before="",
    ),
    Knob(
        "cache_dir",
        "",
        "prepared data and compiled programs; empty: ~/.cache/lungseg_jax",
        is_cosmetic=True,
    ),
    Knob(
        "data.dir",
        "",
        "folder with 2d_images/ and 2d_masks/, also on gs:// or s3://; empty: the phantom "
        "dataset",
        is_cosmetic=True,
    ),
    Knob("data.phantom_slices", 240, "slices of the phantom dataset", (3, 100_000)),
    Knob("data.phantom_seed", 0, "seed of the phantom dataset", (0, 2**32 - 1)),
    Knob(
        "data.image_size",
        256,
        "side of the network's input, px; scores are at full size",
        (16, 4096),
    ),
    Knob(
        "data.preprocessing",
        "hu",
        '"hu"; "window" as in version 0.1; "seed": the damaged pixels of the notebooks',
        choices=CHANNELS,
        before="window",
    ),
    Knob(
        "data.window_hu",
        (-1000.0, 400.0),
        "values are clipped to it and scaled to 0..1",
    ),
    Knob(
        "data.extra_phantoms",
        0,
        "phantoms that are mixed into every batch, beside the data; 0: none",
        (0, 100_000),
        before=0,
    ),
    Knob(
        "data.extra_share",
        0.25,
        "share of every batch that the extra phantoms fill",
        (0.0, 1.0),
        before=0.25,
    ),
    Knob(
        "data.placement",
        AUTO,
        "where training slices are; auto: the first of the others that fits",
        choices=(AUTO, *PLACEMENTS),
        before=AUTO,
        is_cosmetic=True,
    ),
    Knob(
        "data.soft_masks",
        True,
        "train on the share of lung in each pixel instead of 0 or 1",
    ),
    Knob(
        "data.test_fraction",
        0.1,
        "share of slices to test on; with split_seed 3, the notebooks' 27 of 267",
        (1e-6, 0.9),  # a run is always scored
    ),
    Knob(
        "data.validation_fraction",
        0.1,
        "share of slices to validate on; 0.0 in the notebooks",
        (0.0, 0.9),
    ),
    Knob(
        "data.leave_out_air",
        True,
        "leave out training slices whose label has the air around the body as lung",
        before=False,
    ),
    Knob("data.split_seed", 3, "seed of the split", (0, 2**32 - 1)),
    Knob(
        "data.fold",
        0,
        "which part of the slices to test on, of 1/test_fraction parts; see crossval",
        (0, 999),
        before=0,
    ),
    Knob("model.name", "inception", "block of the U-Net", choices=MODELS),
    Knob("model.filters", 8, "filters of the first level", LIMITS["filters"]),
    Knob(
        "model.levels",
        4,
        "levels of the U-Net; 6 or 7 see a picture of 512 px as a whole",
        LIMITS["levels"],
        before=4,
    ),
    Knob(
        "model.kernel_size",
        3,
        "kernel of conv blocks, odd; 1 in the notebook",
        LIMITS["kernel_size"],
    ),
    Knob("model.norm", "batch", "normalization", choices=NORMS, before="batch"),
    Knob(
        "model.dtype",
        "float32",
        "dtype of the computation; parameters are float32",
        choices=DTYPES,
    ),
    Knob(
        "model.bn_momentum",
        0.9,
        "weight of the past in running batch statistics",
        LIMITS["bn_momentum"],
    ),
    Knob(
        "model.bn_per_device",
        False,
        "normalize the slices of each device by themselves, not the whole batch",
        before=False,
    ),
    Knob(
        "model.remat",
        False,
        "compute activations again for the gradient: less memory on accelerators",
        before=False,
    ),
    Knob(
        "model.precision",
        "default",
        "precision of float32 products on accelerators; CPUs always use full precision",
        choices=PRECISIONS,
        before="default",
    ),
    Knob("optimizer.name", "muon", "optimizer", choices=OPTIMIZERS),
    Knob(
        "optimizer.weight_decay", 1e-4, "decoupled decay of muon and adamw", (0.0, 1.0)
    ),
    Knob("optimizer.epsilon", 1e-8, "epsilon of Adam; 1e-7 in Keras", (0.0, 1.0)),
    Knob(
        "optimizer.muon_hidden_only",
        True,
        "muon leaves the kernels that see the image, and the head, to NAdam",
        before=False,
    ),
    Knob(
        "optimizer.clip_norm",
        0.0,
        "largest global norm of the gradient; 0.0: no clipping",
        (0.0, 1e9),
    ),
    Knob("schedule.name", "cosine_restarts", "learning rate", choices=SCHEDULES),
    Knob("schedule.peak", 5e-3, "learning rate at the start of a cycle", (1e-9, 10.0)),
    Knob("schedule.cycles", 3, "cycles, each of which ends in a snapshot", (1, 10_000)),
    Knob(
        "schedule.warmup_steps",
        0,
        "steps of linear warm-up at the start of the first cycle",
        (0, LARGE),
    ),
    Knob("schedule.growth", 1.0, "length of a cycle over the previous", (0.01, 100.0)),
    Knob("schedule.peak_decay", 1.0, "peak of a cycle over the previous", (0.01, 1.0)),
    Knob("schedule.hold_steps", 1, "steps between changes of the rate", (1, LARGE)),
    Knob("schedule.floor", 0.0, "rate that the cosine decays towards", (0.0, 10.0)),
    Knob("train.total_steps", 600, "updates", (1, LARGE)),
    Knob("train.batch_size", 8, "slices per update, over all devices", (1, 100_000)),
    Knob(
        "train.batch_per_device",
        0,
        "slices per update and device, with rates and steps scaled to that batch; 0: off",
        (0, 100_000),
        before=0,
    ),
    Knob(
        "train.accumulate",
        1,
        "micro-batches of an update, one after the other; batch norm sees each by itself",
        (1, 100_000),
        before=1,
    ),
    Knob("train.loss", "bce_dice", "loss", choices=LOSSES),
    Knob(
        "train.outlier_knee",
        0.1,
        "loss of an image above which its gradient is damped; 0.0: never",
        (0.0, 1e3),
    ),
    Knob(
        "train.outlier_factor",
        0.0,
        "raise that limit to this multiple of the running median of the losses",
        (0.0, 1e3),
        before=0.0,
    ),
    Knob(
        "train.population_stats",
        False,
        "re-estimate batch statistics over the training split at snapshots",
    ),
    Knob("train.save_every", 100, "steps between checkpoints", (1, LARGE)),
    Knob(
        "train.validate_every",
        100,
        "steps between validations, at the network's size",
        (1, LARGE),
    ),
    Knob(
        "train.log_every",
        10,
        "steps between rows of metrics.jsonl",
        (1, LARGE),
        is_cosmetic=True,
    ),
    Knob(
        "train.steps_per_dispatch",
        1,
        "updates per call of the device; more than 1 only pays on accelerators",
        (1, 10_000),
    ),
    Knob(
        "evaluate.threshold", 0.5, "probability above which a pixel is lung", (0.0, 1.0)
    ),
    Knob("evaluate.batch_size", 4, "slices per call in evaluation", (1, 100_000)),
    Knob(
        "evaluate.scale",
        1.0,
        "side of the network's input in predictions, as a multiple of data.image_size",
        (0.5, 4.0),
        before=1.0,
    ),
    Knob(
        "evaluate.mirror_members",
        True,
        "each member of the ensemble sees another mirror image of a slice",
        before=False,
    ),
    Knob("augment.zoom", 0.1, "scale each axis by 1 - zoom to 1 + zoom", (0.0, 0.9)),
    Knob("augment.shift", 0.1, "shift each axis by up to this share of it", (0.0, 0.9)),
    Knob("augment.rotation_deg", 5.0, "rotate by up to this angle", (0.0, 180.0)),
    Knob("augment.flip_lr", True, "mirror half of the examples left to right"),
    Knob("augment.flip_ud", True, "mirror half of the examples top to bottom"),
    Knob(
        "augment.scale",
        1.5,
        "magnify or shrink by up to this factor; 1 or below: off",
        (0.0, 4.0),
        before=0.0,
    ),
    *(
        Knob(
            f"augment.{name}", default, f"probability of {what}", (0.0, 1.0), before=0.0
        )
        for name, default, what in (
            ("turn", 0.08, "a rotation by any angle"),
            ("crop", 0.2, "a field of view that is tight around both lungs or one"),
            ("collapse", 0.08, "one smaller lung, with its surroundings pulled in"),
        )
    ),
    Knob(
        "augment.least_air",
        0.1,
        "share of the lungs that keeps its air where a consolidation is painted",
        (0.0, 1.0),
        before=0.1,
    ),
)


def all_knobs() -> tuple[Knob, ...]:
    """Return KNOBS and, for each of the TRANSFORMS at this moment, its probability."""
    probabilities = (
        Knob(
            f"augment.{name}",
            transform.default,
            f"probability of {transform.meaning}",
            (0.0, 1.0),
            before=0.0,
        )
        for name, transform in TRANSFORMS.items()
    )
    return (*KNOBS, *probabilities)


def defaults() -> dict[str, Any]:
    """Return the default of every knob, by name."""
    return {knob.name: knob.default for knob in all_knobs()}


def before_values() -> dict[str, Any]:
    """Return `Knob.before` of the knobs added after version 0.1, by name."""
    return {knob.name: knob.before for knob in all_knobs() if knob.before is not None}


def knob_table() -> str:
    """Describe every knob as a Markdown table, for docs/reference/configuration.md."""
    lines = ["| knob | meaning | default | allowed |", "|---|---|---|---|"]
    for knob in all_knobs():
        allowed = ", ".join(knob.choices)
        if knob.range:
            allowed = " to ".join(shown(limit) for limit in knob.range)
        lines.append(
            f"| `{knob.name}` | {knob.meaning} "
            f"| `{shown(knob.default) or '(empty)'}` | {allowed} |"
        )
    return "\n".join(lines)


def nested(values: dict[str, Any]) -> ConfigDict:
    """Turn dotted names into a ConfigDict, locked so that misspelt knobs are errors."""
    return ConfigDict(unflatten_dict(values, sep=".")).lock()


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Turn nested dicts into dotted names; tuples become lists, as in JSON."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in flatten_dict(tree, sep=".").items()
    }
