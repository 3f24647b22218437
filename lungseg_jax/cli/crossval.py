"""Cross-validate: score every slice by a training that has not seen it.

    lungseg crossval --config.data.dir=DIR
    lungseg crossval --config=incp_snapshot:long --folds=4 --config.data.dir=DIR
    lungseg crossval --config.data.dir=DIR --workdir=runs/folds

The slices, or patients if DIR has a slices.csv with them, are split into folds. Each fold
is scored by a training on the others. Takes any --config.KEY=VALUE of `lungseg train`
except config.data.test_fraction and config.data.fold. Re-running the command continues it.

Writes the runs as WORKDIR/fold_0 and so on; crossval.json with the scores of the folds, of
all slices together and of each; and labels.csv and labels.png, as `lungseg audit` does:
the labels that look wrong.
"""

import click

from lungseg_jax.cli import app


@app.command(
    __doc__,
    context_settings=app.WITH_CONFIG,
    when_interrupted="the same command continues it.",
)
@app.config_option
@click.option(
    "--folds",
    type=click.IntRange(2, 1000),
    default=5,
    help="Number of parts, each of which is tested on once.",
)
@click.option(
    "--workdir",
    default="",
    metavar="DIR",
    show_default=False,
    help="Folder of the runs; by default runs/<recipe>-<data>-crossval.",
)
@app.device_option
@app.quiet_option
@app.verbose_option
@app.config_words
def crossval(config: str, folds: int, workdir: str, device, words) -> None:
    from lungseg_jax.cli import train_flags
    from lungseg_jax.runtime.errors import UserError

    if any(word.lstrip("-").startswith("config.data.test_fraction") for word in words):
        raise UserError(
            "--config.data.test_fraction would have no effect.",
            rule="each part of --folds is tested on.",
            remedy="leave it out; --folds=10 tests on a tenth of the slices at a time.",
        )
    c = train_flags.read_config([f"--config={config}", *words])
    from lungseg_jax.cross_validation import cross_validate
    from lungseg_jax.evaluation.label_audit import format_suspects
    from lungseg_jax.evaluation.results import format_folds
    from lungseg_jax.runtime import devices, progress

    devices.choose(device)
    devices.require(device)
    result = cross_validate(c, workdir, folds=folds)
    progress.answer(f"{format_folds(result)}\n{format_suspects(result['slices'])}")
