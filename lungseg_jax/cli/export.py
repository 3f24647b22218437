"""Write a bundle: a trained ensemble as one folder to share.

    lungseg export --run=runs/incp_snapshot-phantom lungs
    lungseg export --run=RUN --members=average small
    lungseg predict --run=lungs slice.tif mask.png

BUNDLE is a folder that does not exist yet: weights as safetensors, a JSON description, a
model card, checksums, and a StableHLO program that runs without this package. `predict`,
`evaluate` and `verify` accept it as --run.
"""

from pathlib import Path

from lungseg_jax.cli import app


@app.command(__doc__)
@app.output("BUNDLE", "a folder that does not exist yet.")
@app.run_option("Run folder.")
@app.members_option()
@app.quiet_option()
@app.verbose_option()
def export(out: Path, run: str, members: str) -> None:
    from lungseg_jax.inference.ensemble.bundle import write_bundle
    from lungseg_jax.inference.ensemble.loading import load_run
    from lungseg_jax.runtime import progress
    from lungseg_jax.runtime.errors import pluralize
    from lungseg_jax.runtime.files import user_path
    from lungseg_jax.training.run import Run
    from lungseg_jax.training.run_folder import RunFolder

    opened = Run.open(RunFolder(user_path(run)))
    trained = load_run(opened, members)
    evaluation = opened.evaluation
    if evaluation and list(evaluation["members"]) != list(trained.members):
        evaluation = None
    if not evaluation:
        progress.say(
            "the run has no scores of these members, so the model card has none"
        )
    record = {
        "name": opened.config.name,
        "data": opened.record["data"],
        "versions": opened.record["versions"],
        "evaluation": evaluation,
    }
    write_bundle(out, trained, record)
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    networks = pluralize(len(trained.members), "network")
    progress.say(f"wrote {out}: {networks}, {size:.1f} MB")


def main() -> None:
    app.run(export)
