"""`lungseg compare`: an answer that cannot be printed is an error."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_output_that_cannot_be_written_is_an_error(labelled_folder):
    folder = labelled_folder / "2d_masks"
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "lungseg_jax", "compare", folder, folder]
        done = subprocess.run(
            words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2 and "could not be written" in done.stderr
