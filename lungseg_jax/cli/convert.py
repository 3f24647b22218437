"""Turn labelled volumes into a data folder to train on.

    lungseg convert scan.nii.gz label.nii.gz DIR
    lungseg convert imagesTr/ labelsTr/ DIR
    lungseg convert --lung=10,11,12,13,14 --every=4 scans/ labels/ DIR
    lungseg train --config.data.dir=DIR

IMAGE is a CT volume in Hounsfield units (NIfTI, NRRD, MetaImage, or the folder of a DICOM
series) and LABEL a volume of the same grid; or both are folders of these, with equal
names. Names of images may end in _0000, as those of nnU-Net do. Every axial slice becomes
a pair of files, and slices.csv says which patient it shows, so that no patient is in two
splits, and its spacing.
"""

from pathlib import Path

import click

from lungseg_jax.cli import app
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, bullet_list, pluralize
from lungseg_jax.runtime.outputs import check_outputs


def _numbers(ctx, param, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word]
    except ValueError as e:
        raise UserError(
            f"--lung={text} is not a list of numbers.", rule="such as 1,2."
        ) from e


@app.command(__doc__)
@click.argument("image", metavar="IMAGE", type=app.PATH)
@click.argument("label", metavar="LABEL", type=app.PATH)
@app.output("DIR", "a folder that does not exist yet.")
@click.option(
    "--lung",
    default="",
    metavar="N,N,...",
    callback=_numbers,
    show_default=False,
    help="Values of LABEL that are lung; by default all but 0.",
)
@click.option(
    "--every", type=click.IntRange(1), default=1, help="Take every such slice."
)
@app.quiet_option
def convert(image: Path, label: Path, out: Path, lung: list[int], every: int) -> None:
    from lungseg_jax.data.conversion import convert_volumes, find_labelled_volumes

    check_outputs(
        [],
        folders=[out],
        inputs=[image, label],
        overwrite=False,
        remedy="name another folder, or remove this one.",
    )
    volumes = find_labelled_volumes(image, label)
    with progress.bar("converting", len(volumes), unit="volume") as bar:
        slices, without_lung = convert_volumes(
            volumes, out, lung=lung, every=every, progress=bar.update
        )
    if without_lung:
        cases = pluralize(len(without_lung), "case")
        progress.say(f"no lung in the slices of {cases}:\n{bullet_list(without_lung)}")
    progress.say(
        f"wrote {pluralize(slices, 'slice')} of {pluralize(len(volumes), 'volume')}; "
        f"train with --config.data.dir={out}"
    )
