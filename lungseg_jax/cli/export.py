"""Write a bundle: a trained ensemble as one folder to share.

    lungseg export --run=runs/incp_snapshot-phantom lungs
    lungseg export --run=RUN --members=average small
    lungseg predict --run=lungs slice.tif mask.png
    lungseg export --run=RUN --license=cc-by-4.0 --push=ORG/NAME lungs
    lungseg predict --run=hf://ORG/NAME slice.tif mask.png

BUNDLE is a folder that does not exist yet: weights as safetensors, a JSON description, a
model card, checksums, and a StableHLO program that runs without this package. `predict`,
`evaluate` and `verify` accept it as --run. --push also uploads it to the Hugging Face
Hub, as a private repository if it is new; it needs the extra [hub] and `hf auth login`.
"""

from pathlib import Path

import click

from lungseg_jax.cli import app


@app.command(__doc__)
@app.output("BUNDLE", "a folder that does not exist yet.")
@app.run_option("Run folder, also on gs:// or s3://.")
@app.members_option()
@click.option("--push", metavar="ORG/NAME", help="Also upload it to this repository.")
@click.option("--license", metavar="ID", help="For the model card, such as apache-2.0.")
@click.option(
    "--dataset",
    "datasets",
    metavar="ORG/NAME",
    multiple=True,
    help="Data on the Hub that it was trained on, for the model card.",
)
@app.quiet_option()
@app.verbose_option()
def export(
    out: Path,
    run: str,
    members: str,
    push: str | None,
    license: str | None,
    datasets: tuple[str, ...],
) -> None:
    from lungseg_jax.evaluation.results import scores_of
    from lungseg_jax.inference.ensemble.bundle import write_bundle
    from lungseg_jax.inference.ensemble.hub import push_bundle, require_hub
    from lungseg_jax.inference.ensemble.run_members import load_run
    from lungseg_jax.runtime import progress
    from lungseg_jax.runtime.errors import pluralize
    from lungseg_jax.runtime.files import folder_path
    from lungseg_jax.training.run import Run
    from lungseg_jax.training.run_folder import RunFolder

    if push is not None:
        require_hub(push, option=f"--push={push}")
    opened = Run.open(RunFolder(folder_path(run)))
    trained = load_run(opened, members)
    scores = opened.evaluation and scores_of(opened.evaluation, list(trained.members))
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
    write_bundle(out, trained, record)
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    networks = pluralize(len(trained.members), "network")
    progress.say(f"wrote {out}: {networks}, {size:.1f} MB")
    if push is not None:
        progress.say(f"pushed to {push_bundle(out, push)}")


def main() -> None:
    app.run(export)
