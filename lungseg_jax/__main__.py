"""The command `lungseg`; `python -m lungseg_jax` is the same.

lungseg train    --config=configs/incp_snapshot.py
lungseg predict  scan.nii.gz lungs.nii.gz
lungseg COMMAND --help
"""

import importlib
import sys

from lungseg_jax.runtime import huge_pages, signals

COMMANDS = {  # each is a module of lungseg_jax.cli, with a function of the same name
    "train": "train a U-Net, ensemble its snapshots, score them, report",
    "predict": "segment slices, folders, volumes, DICOM series",
    "evaluate": "score a run on a labelled folder",
    "crossval": "cross-validate: score every slice by a training without it",
    "audit": "list labels that look wrong",
    "report": "write the page of a finished run again",
    "compare": "score masks from any source against true ones",
    "export": "write a trained ensemble as one folder to share",
    "convert": "turn labelled volumes into a data folder to train on",
    "phantom": "draw a synthetic patient as a volume, with its lung mask",
    "check": "describe a data folder, or list everything wrong with it",
    "compile": "estimate memory and time on TPUs or GPUs that you do not have",
    "doctor": "describe this installation, and say what to change",
    "verify": "verify that a run or a bundle is intact, bit for bit",
}


def main() -> None:
    """Run the command named by the first word."""
    if sys.argv[1:2] in (["train"], ["crossval"]):
        huge_pages.restart_with_huge_pages()
    signals.install_handlers()  # before the imports
    if sys.argv[1:2] == ["train"]:
        del sys.argv[1]
        importlib.import_module("lungseg_jax.cli.train").main()
        return
    root = importlib.import_module("lungseg_jax.cli.root")
    root.main(COMMANDS, __doc__)


if __name__ == "__main__":
    main()
