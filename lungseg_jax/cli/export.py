"""Write a bundle: a trained ensemble as one folder to share.

    lungseg export --run=runs/incp_snapshot-phantom lungs
    lungseg export --run=RUN --members=average small
    lungseg export --run=seed0 --run=seed1 --members=last deep_ensemble
    lungseg predict --run=lungs slice.tif mask.png
    lungseg export --run=RUN --license=cc-by-4.0 --push=ORG/NAME lungs
    lungseg predict --run=hf://ORG/NAME slice.tif mask.png

BUNDLE is a folder that does not exist yet: weights as safetensors, a JSON description, a
model card, checksums, and a StableHLO program that runs without this package. `predict`,
`evaluate`, `audit` and `verify` accept it as --run. Several runs of the same network on the
same data, which differ in --config.seed, become one ensemble: it is tuned on their
validation split and scored on their test split, and --members are those of each run. --push
also uploads it to the Hugging Face Hub, as a private repository if it is new; it needs the
extra [hub] and `hf auth login`. A push that has failed is repeated by the same command.
"""

from pathlib import Path

import click

from lungseg_jax.cli import app
from lungseg_jax.inference.ensemble.location import (
    require_hub,
    require_outside_ensemble,
    require_run,
)
from lungseg_jax.runtime import progress


@app.command(
    __doc__,
    when_interrupted="any bundle already written is complete; with --push, the same "
    "command uploads it.",
)
@app.output("BUNDLE", "a folder that does not exist yet.")
@app.run_option("Run folder, also on gs:// or s3://; may be repeated.", multiple=True)
@app.members_option
@click.option(
    "--data",
    type=app.FOLDER,
    help="Folder of the data of several runs, if it has moved.",
)
@click.option("--push", metavar="ORG/NAME", help="Also upload it to this repository.")
@click.option("--license", metavar="ID", help="For the model card, such as apache-2.0.")
@click.option(
    "--dataset",
    "datasets",
    metavar="ORG/NAME",
    multiple=True,
    help="Data on the Hub that it was trained on, for the model card.",
)
@app.quiet_option
@app.verbose_option
def export(
    out: Path,
    run: tuple[str, ...],
    members: str,
    data: Path | None,
    push: str | None,
    license: str | None,
    datasets: tuple[str, ...],
) -> None:
    if push is not None:
        require_hub(push, option=f"--push={push}")
    for folder in run:
        require_run(folder)
        require_outside_ensemble(folder, [out])
    from lungseg_jax.evaluation.export import export_runs
    from lungseg_jax.inference.ensemble.hub import push_bundle

    export_runs(
        out,
        run,
        members,
        data=data,
        license=license,
        datasets=datasets,
        may_exist=push is not None,
    )
    if push is not None:
        progress.say(f"pushed to {push_bundle(out, push)}")
