"""Write a bundle: a trained ensemble as one folder to share.

    lungseg export --run=runs/incp_snapshot-phantom lungs
    lungseg export --run=RUN --members=average small
    lungseg export --run=seed0 --run=seed1 --members=last deep_ensemble
    lungseg predict --run=lungs slice.tif mask.png
    lungseg export --run=RUN --license=cc-by-4.0 --push=ORG/NAME lungs
    lungseg predict --run=hf://ORG/NAME slice.tif mask.png

BUNDLE is a folder that does not exist yet: weights as safetensors, a JSON description, a
model card, checksums, and a StableHLO program that runs without this package. `predict`,
`evaluate` and `verify` accept it as --run. Several runs of the same network on the same
data, which differ in --config.seed, become one ensemble: it is tuned on their validation
split and scored on their test split, and --members are those of each run. --push also
uploads it to the Hugging Face Hub, as a private repository if it is new; it needs the extra
[hub] and `hf auth login`. A push that has failed is repeated by the same command.
"""

from pathlib import Path

import click

from lungseg_jax.cli import app


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
    from lungseg_jax.evaluation.deep_ensemble import combine
    from lungseg_jax.evaluation.results import scores_of
    from lungseg_jax.inference.ensemble import bundle
    from lungseg_jax.inference.ensemble.hub import push_bundle, require_hub
    from lungseg_jax.inference.ensemble.location import is_bundle
    from lungseg_jax.inference.ensemble.run_members import load_run
    from lungseg_jax.runtime import progress
    from lungseg_jax.runtime.errors import UserError, pluralize
    from lungseg_jax.runtime.files import folder_path
    from lungseg_jax.training.run import Run
    from lungseg_jax.training.run_folder import RunFolder

    if push is not None:
        require_hub(push, option=f"--push={push}")
    is_there = push is not None and is_bundle(out)
    if not is_there:
        bundle.require_new(out)
    folders = [folder_path(path) for path in run]
    for folder in filter(is_bundle, folders):
        raise UserError(
            f"{folder} is a bundle.",
            rule="--run is the folder of a training.",
            remedy="share it as it is.",
        )
    runs = [Run.open(RunFolder(folder)) for folder in folders]
    opened = runs[0]
    if len(runs) > 1:
        trained, evaluation = combine(runs, members, data=data)
    elif data:
        raise UserError(
            "--data has no effect with one --run.",
            rule="its tuning and scores are part of the run.",
            remedy="leave it out.",
        )
    else:
        trained, evaluation = load_run(opened, members), opened.evaluation
    scores = evaluation and scores_of(evaluation, list(trained.members))
    if not scores:
        progress.say(
            "the run has no scores of these members, so the model card has none"
        )
    record = {
        "name": opened.config.name,
        "data": opened.record["data"],
        "versions": opened.record["versions"],
        "evaluation": scores,
        "license": license,
        "datasets": list(datasets),
    }
    if is_there:
        bundle.require_same(out, trained, record)
    else:
        bundle.write_bundle(out, trained, record)
        size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
        networks = pluralize(len(trained.members), "network")
        progress.say(f"wrote {out}: {networks}, {size:.1f} MB")
    if push is not None:
        progress.say(f"pushed to {push_bundle(out, push)}")
