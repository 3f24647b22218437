"""Train a U-Net, ensemble its snapshots, score them and write a report.

    lungseg train
    lungseg train --config=incp_snapshot:long --config.data.dir=DIR
    lungseg train --config=configs/conv.py:notebook --workdir=runs/notebook
    lungseg train --config.data.dir=DIR --preview=sheet.png
    lungseg train --config.data.dir=DIR --init=RUN --track=tensorboard
    lungseg train --extend --config.schedule.cycles=4 --config.train.total_steps=1286
    lungseg train --list

Without --config.data.dir, it draws synthetic slices (phantoms) and trains on them. DIR
holds 2d_images/ and 2d_masks/ with equal file names, and optionally slices.csv with
patients and pixel spacings. Re-running a command resumes the run that it started; on Ctrl-C
or SIGTERM, training saves first. Each tracker of --track needs the extra of its name, such
as [tensorboard]. `python -m lungseg_jax.main` is the same command.
"""

import sys

from absl import flags

from lungseg_jax.cli import outcome, train_flags
from lungseg_jax.reporting.preview_path import preview_path
from lungseg_jax.runtime import device_names
from lungseg_jax.training.recipe_files import describe_recipes
from lungseg_jax.training.trackers import require_trackers

KEYS_HEAD = (
    "Config keys, with their values before a recipe changes them (--print_config shows the "
    "result)"
)
FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "workdir",
    "",
    "Run folder, also on gs:// or s3://; by default runs/<recipe>-<data>.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "distributed",
    False,
    "Join the other processes of a job: see launch/slurm.sh.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "preview",
    "",
    "Write a PNG of augmented training slices, and train nothing.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "init",
    "",
    "Run or bundle (or hf://, gs://, s3://) that the training starts from: --config.init.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "track",
    [],
    "Trackers that follow the training: tensorboard, wandb, mlflow.",
    flag_values=FLAGS,
)
flags.DEFINE_string("device", "", device_names.HELP, flag_values=FLAGS)
flags.DEFINE_bool(
    "list", False, "Describe the recipes and their variants.", flag_values=FLAGS
)
flags.DEFINE_bool(
    "print_config", False, "Print the complete configuration.", flag_values=FLAGS
)
flags.DEFINE_bool(
    "extend",
    False,
    "Train a finished run for more steps, along the same learning rates.",
    flag_values=FLAGS,
)


def train(device: device_names.DeviceName | None) -> None:
    if FLAGS.init:
        FLAGS.config.init = FLAGS.init
    if FLAGS.print_config:
        print(FLAGS.config)
        return
    from lungseg_jax.experiment import preview, run_experiment
    from lungseg_jax.runtime import devices, job

    devices.choose(device)
    if FLAGS.distributed:
        job.initialize()
    devices.require(device)
    if FLAGS.preview:
        preview(FLAGS.config, FLAGS.preview)
        return
    run_experiment(FLAGS.config, FLAGS.workdir, extend=FLAGS.extend, track=FLAGS.track)


def main() -> None:
    argv = sys.argv[1:]
    train_flags.define_config(FLAGS, sys.argv)
    with outcome.reported(f"resume with\n  {train_flags.command_line()}"):
        if {"-h", "--help", "-help"} & set(argv):
            print(_help())
            return
        train_flags.parse(argv, FLAGS)
        if FLAGS.list:
            print(describe_recipes())
            return
        device = device_names.parse_device(FLAGS.device)
        # The library has the same checks, but importing it takes seconds.
        require_trackers(FLAGS.track, FLAGS.workdir)
        if FLAGS.preview:
            preview_path(FLAGS.preview)
        train_flags.parse_config(argv, FLAGS)
        train(device)


def _help() -> str:
    keys = "\n".join(knob.help for knob in train_flags.known_knobs())
    parts = (__doc__ or "").strip(), f"Flags:{train_flags.flag_help(FLAGS)}"
    return "\n\n".join([*parts, f"{KEYS_HEAD}:\n{keys}"])
