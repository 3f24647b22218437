"""Segment the lungs in a slice, a folder of slices, a volume or a DICOM series.

    lungseg predict scan.nii.gz lungs.nii.gz
    lungseg predict --run=runs/incp_snapshot-phantom slice.tif mask.png
    lungseg predict --run=RUN --overlay --csv=lungs.csv images/ masks/
    lungseg predict --labels=sides scan.nii.gz lungs.nii.gz
    lungseg predict --run=RUN --uncertainty dicom_folder/ lungs.mha
    lungseg predict --labels=sides dicom_folder/ lungs.seg.dcm
    lungseg predict --run=BUNDLE --members=last --quiet scan.nrrd lungs.nrrd
    lungseg predict --overlay --csv=lungs.csv --resume patients/ masks/

INPUT is a TIFF, PNG or NumPy file, a NIfTI, NRRD or MetaImage volume, a DICOM file or the
folder of a DICOM series, or a folder of such files and series. Volumes and series are found
at any depth, such as patients/PATIENT/STUDY/SERIES. OUTPUT is a file for one input and a
folder for several, in which each mask has the place and the name of its input. Masks have
the size and the geometry of their input, with values 0 and 255 for a slice and 0 and 1 for
a volume. lungs.seg.nrrd is a segmentation for 3D Slicer and, from a DICOM input,
lungs.seg.dcm a DICOM Segmentation, which needs the extra [dicom]. Inputs are never written
to. Of several volumes, one that cannot be used is skipped, and named at the end with exit
status 2. Without --run, the weights are those of the package, which were trained on
synthetic slices only.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lungseg_jax.cli import app
from lungseg_jax.inference.ensemble.location import (
    PRETRAINED,
    require_ensemble,
    require_outside_ensemble,
)
from lungseg_jax.inference.outputs import LABELS, MAPS, POSTPROCESSING
from lungseg_jax.runtime import progress

if TYPE_CHECKING:
    from lungseg_jax.inference.segmenter import LungSegmenter
    from lungseg_jax.runtime.device_names import DeviceName


def map_options(function):
    """Define an option for each of MAPS."""
    for name, meaning in reversed(MAPS.items()):
        option = click.option(
            f"--{name}", is_flag=True, help=f"Write the {meaning}, as a separate image."
        )
        function = option(function)
    return function


@app.command(
    __doc__,
    when_interrupted="the masks written so far are complete; --resume adds the rest.",
    groups={
        "Network": ("run", "members", "flips", "device"),
        "Masks": ("labels", "postprocessing", "volume_cleanup", "format"),
        "Further outputs": ("overlay", "csv", "json", *MAPS),
    },
)
@click.argument("source", metavar="INPUT", type=app.PATH)
@app.output("OUTPUT", "a file for one input, a folder for several.")
@app.run_option(
    "Run or bundle: a folder, gs://, s3:// or hf://; by default that of the package.",
    default=PRETRAINED,
)
@app.members_option
@app.flips_option
@app.device_option
@click.option(
    "--labels",
    type=click.Choice(list(LABELS)),
    default="lung",
    help="Values of the masks of volumes; "
    + "; ".join(
        f"{name}: {', '.join(f'{s.value} {s.name.lower()}' for s in segments)}"
        for name, segments in LABELS.items()
    )
    + ".",
)
@click.option(
    "--postprocessing",
    type=click.Choice(["tuned", *POSTPROCESSING]),
    default="tuned",
    metavar="NAME",
    help="Clean-up of the mask of each slice, such as none; tuned: that of the run.",
)
@click.option(
    "--volume_cleanup/--novolume_cleanup",
    default=True,
    help="Clean up the mask of a volume in 3D: drop small or airless parts, fill cavities.",
)
@click.option(
    "--format",
    default="",
    metavar="SUFFIX",
    show_default=False,
    help="Format of the masks in a folder: .png, .nii.gz, ...",
)
@click.option(
    "--overlay",
    is_flag=True,
    help="Write pictures of the masks on the slices, and a page for each volume.",
)
@click.option(
    "--csv",
    type=app.PATH,
    help="File for the area, density and confidence of each slice.",
)
@click.option(
    "--json",
    type=app.PATH,
    help="File for the same data, and the outputs, weights and skipped inputs.",
)
@map_options
@click.option(
    "--series",
    default="",
    metavar="UID",
    show_default=False,
    help="The DICOM series to segment, for a folder with several.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Keep the masks that are in the folder OUTPUT, with their rows in --csv, and "
    "predict the rest, with the same options.",
)
@app.overwrite_option
@app.quiet_option
@app.verbose_option
def predict(
    source: Path,
    out: Path,
    *,
    run: str,
    members: str,
    flips: bool,
    device: "DeviceName | None",
    labels: str,
    postprocessing: str,
    volume_cleanup: bool,
    format: str,
    overlay: bool,
    csv: Path | None,
    json: Path | None,
    series: str,
    resume: bool,
    overwrite: bool,
    **maps: bool,
) -> None:
    require_ensemble(run)
    require_outside_ensemble(run, [path for path in (out, csv, json) if path])
    from lungseg_jax.inference.plan import plan_outputs, require_table

    tasks = plan_outputs(
        source,
        out,
        format=format,
        series=series,
        maps=[name for name in MAPS if maps[name]],
        overlay=overlay,
        extra_outputs=[path for path in (csv, json) if path],
        overwrite=resume or overwrite,
    )
    if resume:
        require_table(tasks, out, csv=csv, json=json)
    segmenter = _load(run, device, members, flips, postprocessing)
    from lungseg_jax.prediction import run_prediction

    run_prediction(
        segmenter,
        tasks,
        out,
        csv=csv,
        json=json,
        labels=labels,
        volume_cleanup=volume_cleanup,
        resume=resume,
        overwrite=overwrite,
        network={"run": run, "members": members},
    )


def _load(
    run: str,
    device: "DeviceName | None",
    members: str,
    flips: bool,
    postprocessing: str,
) -> "LungSegmenter":
    if run == PRETRAINED:
        progress.say(
            "weights: those of the package, trained on synthetic slices; for research only"
        )
    from lungseg_jax.inference.segmenter import load
    from lungseg_jax.runtime import devices

    devices.choose(device)
    devices.require(device)
    devices.warn_of_idle_gpu()
    return load(run, members=members, flips=flips, postprocessing=postprocessing)
