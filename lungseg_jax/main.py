"""Trains a U-Net, ensembles its snapshots, scores them and writes a report.

    python -m lungseg_jax.main --config=configs/incp_snapshot.py
    python -m lungseg_jax.main --config=configs/incp_snapshot.py --config.data.dir=DIR
    lungseg train --config=configs/conv.py:seed --workdir=runs/notebook

Both names are the same command. Without --config.data.dir the data are the embedded
phantom slices. DIR holds 2d_images/ and 2d_masks/ with equal file names, and slices.csv
where patients or pixel spacing are known. Every key of lungseg_jax/training/config.py
can be set as --config.KEY=VALUE. The same command resumes a run that was stopped; on
Ctrl-C or SIGTERM it saves first. A run that is finished is made longer by --extend with
more steps, as in --extend --config.schedule.cycles=4 --config.train.total_steps=750.
"""

from lungseg_jax.runtime import huge_pages, signals

if __name__ == "__main__":  # before the imports, which take a second
    huge_pages.restart_with_huge_pages()
    signals.install_handlers()

from absl import flags
from ml_collections import config_flags

from lungseg_jax import experiment
from lungseg_jax.cli import app
from lungseg_jax.runtime import distributed
from lungseg_jax.runtime.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Recipe, configs/NAME.py or configs/NAME.py:VARIANT.",
    sys_argv=app.config_words(),
)
WORKDIR = flags.DEFINE_string(
    "workdir", "", "Folder of the run; by default runs/<recipe>-<data>."
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the other processes of a job: see launch/slurm.sh."
)
EXTEND = flags.DEFINE_bool(
    "extend", False, "Train a run for more steps, along the same learning rates."
)


def main(words: list[str]) -> None:
    app.positional(words, [])
    if CONFIG.value is None:
        raise UserError(
            "no recipe was named.",
            remedy="--config=configs/incp_snapshot.py, or --help.",
        )
    if DISTRIBUTED.value:
        distributed.initialize()
    experiment.run_experiment(CONFIG.value, WORKDIR.value, extend=EXTEND.value)


if __name__ == "__main__":
    app.run(main, __doc__, when_interrupted=f"go on with\n  {app.command_line()}")
