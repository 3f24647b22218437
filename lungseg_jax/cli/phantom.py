"""Draw a synthetic patient, from neck to abdomen, as a CT volume with its lung mask.

    lungseg phantom patient.nii.gz
    lungseg phantom --seed=7 --slices=200 --size=512 --spacing=2 patient.nii.gz
    lungseg phantom --mask=lungs.nii.gz patient.nii.gz

Equal flags give equal files. The mask is written beside the volume, here as
patient_mask.nii.gz, with 1 for lung.
"""

import numpy as np
from absl import flags

from lungseg_jax.cli import app
from lungseg_jax.data.io.formats import format_of, split_suffix
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.volume_writer import VolumeWriter
from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.data.phantom.volume import Scan, plan_volume
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import check_outputs, user_path

FLAGS = flags.FlagValues()
flags.DEFINE_integer("seed", 0, "Of the patient.", lower_bound=0, flag_values=FLAGS)
flags.DEFINE_integer("slices", 96, "Number of slices.", 1, 2000, flag_values=FLAGS)
flags.DEFINE_integer(
    "size", 256, "Height and width of a slice, px.", 64, 2048, flag_values=FLAGS
)
flags.DEFINE_float(
    "spacing",
    0.0,
    "Distance between slices, mm; 0: what reaches from neck to abdomen.",
    lower_bound=0.0,
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "mask", "", "File of the mask; empty: OUT with _mask.", flag_values=FLAGS
)
app.define_overwrite(FLAGS)
app.define_quiet(FLAGS)


def phantom(words: list[str]) -> None:
    (out,) = app.positional(words, ["OUT"])
    name, suffix = split_suffix(out)
    format_of(out)
    mask = (
        user_path(FLAGS.mask) if FLAGS.mask else out.with_name(f"{name}_mask{suffix}")
    )
    check_outputs([out, mask], inputs=[], overwrite=FLAGS.overwrite)
    if FLAGS.quiet:
        progress.silence()
    try:
        scan = plan_volume(
            seed=FLAGS.seed,
            slices=FLAGS.slices,
            size=FLAGS.size,
            spacing_mm=FLAGS.spacing,
        )
    except ValueError as e:
        raise UserError(str(e), remedy="fewer --slices, or a smaller --spacing.") from e
    grid = Volume(f"phantom {FLAGS.seed}", _geometry(scan), _no_plane)
    with (
        VolumeWriter(out, grid, np.int16) as images,
        VolumeWriter(mask, grid, np.uint8) as masks,
        progress.bar(out.name, len(scan.levels)) as bar,
    ):
        for k, (image, lungs) in enumerate(scan.slices()):
            images.write(k, image)
            masks.write(k, lungs > 0)
            bar.update()
    size = " x ".join(f"{n} px" for n in grid.geometry.size[:2])
    spacing = " x ".join(f"{mm:.3g}" for mm in grid.geometry.spacing)
    progress.say(f"{out}, {mask}: {grid.count} slices, {size}, voxels {spacing} mm")


def _geometry(scan: Scan) -> Geometry:
    """Return the voxel grid of a scan, with the chest in the middle."""
    between, row, column = scan.spacing_mm
    count, size = len(scan.levels), scan.size
    return Geometry(
        (size, size, count),
        (column, row, between),
        (-0.5 * column * size, -0.5 * row * size, -0.5 * between * count),
    )


def _no_plane(axis: int, index: int) -> np.ndarray:
    raise NotImplementedError("the slices are drawn, not read")


def main() -> None:
    app.run(phantom, FLAGS, __doc__)
