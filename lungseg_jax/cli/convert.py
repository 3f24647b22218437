"""Turn labelled volumes into a data folder to train on.

    lungseg convert scan.nii.gz label.nii.gz DIR
    lungseg convert imagesTr/ labelsTr/ DIR
    lungseg convert --lung=10,11,12,13,14 --every=4 scans/ labels/ DIR
    lungseg train --config.data.dir=DIR

IMAGE is a CT volume in Hounsfield units (NIfTI, NRRD, MetaImage, or the folder of a DICOM
series) and LABEL a volume of the same grid; or both are folders of these, with equal
names. Names of images may end in _0000, as those of nnU-Net do. Every axial slice becomes
a pair of files. slices.csv gives the spacing of each and, as its patient, the case, so
that no case is in two splits: if two cases are of one patient, edit that column.
"""

from pathlib import Path

import click

from lungseg_jax.cli import app
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import bullet_list, pluralize
from lungseg_jax.runtime.outputs import check_outputs


@app.command(__doc__)
@click.argument("image", metavar="IMAGE", type=app.PATH)
@click.argument("label", metavar="LABEL", type=app.PATH)
@app.output("DIR", "a folder that does not exist yet.")
@app.lung_option("Values of LABEL that are lung; by default all but 0.")
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
