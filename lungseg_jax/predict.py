"""Writes lung masks for an image or for a folder of images.

    python -m lungseg_jax.predict --run=runs/incp_snapshot-phantom slice.tif mask.png
    python -m lungseg_jax.predict --run=RUN --members=last images/ masks/

INPUT is a TIFF or PNG with one gray slice, or a folder of them. OUTPUT is a file for a
file and a folder for a folder, where each mask takes the name of its image. Masks have
the size of their input and the values 0 and 255.
"""

from lungseg_jax import stopping

if __name__ == "__main__":
    stopping.listen()

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from absl import flags

from lungseg_jax import cli, progress
from lungseg_jax.data.pairs import list_images
from lungseg_jax.data.preprocess import check_domain
from lungseg_jax.data.readers import SUFFIXES, read_image
from lungseg_jax.data.writers import write_image
from lungseg_jax.errors import UserError, counted, table, together
from lungseg_jax.evaluate import load_run
from lungseg_jax.paths import user_path
from lungseg_jax.run_folder import RunFolder

FLAGS = flags.FLAGS


def plan(source: Path, target: Path, *, overwrite: bool) -> dict[Path, Path]:
    """Which file gives which mask.

    Raises:
      UserError: nothing to read, an output that exists, or one that is its own input.
    """
    if source.is_dir():
        if target.suffix.lower() in SUFFIXES:
            raise UserError(f"{source} is a folder and {target} names one file.")
        images = list_images(source)
        jobs = {path: target / path.name for path in images.values()}
    elif source.is_file():
        if target.is_dir():
            target = target / source.name
        elif target.suffix.lower() not in SUFFIXES:
            raise UserError(
                f"the output {target} is no image file that is known here.",
                rule=f"it ends in one of {', '.join(SUFFIXES)}, or is a folder.",
            )
        jobs = {source: target}
    else:
        raise UserError(f"the input {source} does not exist.")
    if not jobs:
        raise UserError(
            f"the folder {source} has no images.",
            rule=f"files that end in {', '.join(SUFFIXES)}.",
        )
    realpath = os.path.realpath  # unlike Path.resolve, of links in a circle as well
    if any(realpath(source) == realpath(target) for source, target in jobs.items()):
        raise UserError(f"{target} would overwrite its own input.")
    there = [str(path) for path in jobs.values() if path.exists()]
    if there and not overwrite:
        raise UserError(
            f"{counted(len(there), 'output')} already there:\n{table(there)}",
            remedy="name another output, or pass --overwrite.",
        )
    return jobs


def predict(run_folder: RunFolder, jobs: dict[Path, Path], members: str) -> None:
    """Segments every input of `jobs` and writes its mask.

    Raises:
      UserError: no run, or an input that cannot be read; nothing is written then.
    """
    run = load_run(run_folder, members)
    _check_inputs(jobs, run.trained_on)
    outputs = run.ensemble.probabilities(map(read_image, jobs))
    with progress.bar("predicting", len(jobs)) as bar:
        for target, probabilities in zip(jobs.values(), outputs, strict=True):
            mask = probabilities.mean(axis=0) > run.config.evaluate.threshold
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, mask.astype(np.uint8) * np.uint8(255))
            bar.update()


def _check_inputs(paths: Iterable[Path], trained_on: str) -> None:
    """Reads every file once, before the first mask is written."""
    paths, faults = list(paths), []
    with progress.bar("checking", len(paths)) as bar:
        for path in paths:
            try:
                check_domain(read_image(path), trained_on, str(path))
            except UserError as e:
                faults.append(e)
            bar.update()
    if faults:  # nothing was written
        raise together(faults, f"{counted(len(paths), 'input')}, nothing was written")


def main(words: list[str]) -> None:
    source, target = cli.positional(words, ["INPUT", "OUTPUT"])
    jobs = plan(source, target, overwrite=FLAGS.overwrite)
    predict(RunFolder(user_path(FLAGS.run)), jobs, FLAGS.members)
    print(f"wrote {counted(len(jobs), 'mask')} to {target}")


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "Folder of the run.", required=True)
    flags.DEFINE_string("members", "all", "all, last, best, or steps as 180,360.")
    flags.DEFINE_bool("overwrite", False, "Replace outputs that exist.")
    cli.run(main, __doc__, when_interrupted="masks written so far are whole.")
