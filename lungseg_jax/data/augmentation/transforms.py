"""Random augmentation of images and masks together, on the device.

To add an augmentation, write a transform and append a row to TRANSFORMS; the probability
with which it is applied is the knob `augment.NAME`. docs/how-to/extend.md has an example.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lungseg_jax.data.augmentation import geometry, pathology, scanner
from lungseg_jax.data.augmentation.draws import APART

Example = tuple[jax.Array, jax.Array]  # image [h w c] and mask [h w]


@dataclasses.dataclass(frozen=True)
class Transform:
    """An augmentation that is applied to some of the examples.

    Attributes:
      apply: a pure function `(image [h w 1], mask [h w], key) -> (image, mask)` of one
        example. The image is float32 in Hounsfield units, the mask in [0, 1].
      meaning: what it shows, for the list of all knobs.
      default: the probability in `default_config`.
      options: names of other knobs, passed on to `apply` by name.
    """

    apply: Callable[..., Example]
    meaning: str
    default: float = 0.0
    options: tuple[str, ...] = ()


# In the order of application: the patient, then the scanner. The geometry comes first.
TRANSFORMS: dict[str, Transform] = {
    "density": Transform(
        scanner.change_density, "a lung that holds more or less air", 0.5
    ),
    "consolidation": Transform(
        pathology.consolidate, "consolidated lung", 0.2, options=("least_air",)
    ),
    "ground_glass": Transform(pathology.add_ground_glass, "ground-glass opacity", 0.08),
    "effusion": Transform(
        pathology.add_effusion, "pleural fluid, which is not lung", 0.2
    ),
    "nodules": Transform(pathology.add_nodules, "nodules and masses", 0.1),
    "bullae": Transform(pathology.add_bullae, "bullae", 0.06),
    "without_lung": Transform(pathology.remove_lungs, "organs instead of lungs"),
    "blur": Transform(scanner.blur, "a soft kernel", 0.2),
    "sharpening": Transform(scanner.sharpen, "a sharp kernel", 0.15),
    "resolution": Transform(scanner.coarsen, "coarse pixels", 0.15),
    "noise": Transform(scanner.add_noise, "noise", 0.35),
    "streaks": Transform(scanner.add_streaks, "streaks", 0.08),
    "offset": Transform(scanner.add_offset, "an offset of all values", 0.2),
    "gain": Transform(scanner.change_gain, "a stretch of all values", 0.15),
    "padding": Transform(scanner.pad_field_of_view, "a limited field of view", 0.15),
}
GEOMETRY = tuple(geometry.move.__kwdefaults__)  # its options: zoom, shift and so on
HU_GEOMETRY = ("scale", "collapse")  # need Hounsfield units, as all TRANSFORMS do


def augment(
    images: jax.Array, masks: jax.Array, key: jax.Array, **knobs: Any
) -> tuple[jax.Array, jax.Array]:
    """Apply `geometry.move`, and then TRANSFORMS; the same key gives the same pixels.

    Args:
      images: `[b h w c]`, in Hounsfield units for TRANSFORMS.
      masks: `[b h w]`.
      key: the key of this step.
      **knobs: options of `geometry.move` (GEOMETRY), probabilities of TRANSFORMS, and
        their options; one that is left out is off, or has its default.

    Returns:
      Images and masks of the same shapes. With everything off, the arguments themselves.

    Raises:
      TypeError: a knob is unknown.
    """
    passed_on = {o for transform in TRANSFORMS.values() for o in transform.options}
    unknown = knobs.keys() - {*GEOMETRY, *TRANSFORMS} - passed_on
    if unknown:
        raise TypeError(f"unknown augmentation knobs: {', '.join(sorted(unknown))}")
    options = {name: knobs[name] for name in GEOMETRY if knobs.get(name)}
    chances = {name: knobs[name] for name in TRANSFORMS if knobs.get(name)}
    # The geometry uses the key itself, as in version 0.1: older runs resume on the same
    # pixels.
    if options:
        keys = jax.random.split(key, len(images))
        images, masks = jax.vmap(
            lambda image, mask, key: geometry.move(image, mask, key, **options)
        )(images, masks, keys)
    if not chances:
        return images, masks

    def change(example):
        image, mask, draws, keys = example
        for i, (name, transform) in enumerate(TRANSFORMS.items()):
            if name in chances:
                given = {o: knobs[o] for o in transform.options if o in knobs}
                image, mask = jax.lax.cond(
                    draws[i] < chances[name],
                    functools.partial(transform.apply, **given),
                    lambda image, mask, key: (image, mask),
                    *(image, mask, keys[i]),
                )
        return image, mask

    # Each row has a key of its own, so that rows can be appended.
    n, key = len(images), jax.random.fold_in(key, APART)
    row_keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(
        jnp.arange(len(TRANSFORMS))
    )
    chance_keys, keys = jax.vmap(jax.random.split, out_axes=1)(row_keys)
    draws = jax.vmap(lambda key: jax.random.uniform(key, n), out_axes=1)(chance_keys)
    keys = jax.vmap(lambda key: jax.random.split(key, n), out_axes=1)(keys)
    # One example at a time computes only what the draw has chosen; all at once computes
    # everything for every example, which suits accelerators.
    return jax.lax.platform_dependent(
        (images, masks, draws, keys),
        cpu=lambda batch: jax.lax.map(change, batch),
        default=lambda batch: jax.vmap(change)(batch),
    )
