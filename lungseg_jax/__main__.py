"""The command `lungseg`; `python -m lungseg_jax` is the same.

lungseg train    --config=configs/incp_snapshot.py
lungseg predict  --run=runs/incp_snapshot-phantom slice.tif mask.png
lungseg COMMAND --help
"""

import difflib
import importlib
import sys

from lungseg_jax.runtime import huge_pages, signals

COMMANDS = {  # each is `main` of a module of lungseg_jax.cli
    "train": "train a U-Net, ensemble its snapshots, score them, report",
    "predict": "segment slices, folders, volumes, DICOM series",
    "evaluate": "score a run on a labelled folder",
    "compare": "score masks from any source against true ones",
    "export": "write a trained ensemble as one folder to share",
    "phantom": "draw a synthetic patient as a volume, with its lung mask",
    "check": "describe a data folder, or list everything wrong with it",
    "verify": "verify that a run or a bundle is intact, bit for bit",
}


def main() -> None:
    """Run the command named by the first word; exit with status 2 if there is none."""
    words = sys.argv[1:]
    if words and words[0] in ("-h", "--help", "-help", "help"):
        print(_help())
        return
    name = words[0] if words else ""
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"\nfix:   lungseg {near[0]}" if near else ""
        what = f"there is no command {name}." if name else "no command was named."
        rule = f"one of {', '.join(COMMANDS)}."
        print(f"error: {what}\nrule:  {rule}{hint}", file=sys.stderr)
        sys.exit(2)
    if name == "train":
        huge_pages.restart_with_huge_pages()
    signals.install_handlers()  # before the import, which takes a second
    sys.argv[1:2] = []
    importlib.import_module(f"lungseg_jax.cli.{name}").main()


def _help() -> str:
    rows = [f"  {name:9} {summary}" for name, summary in COMMANDS.items()]
    return f"{__doc__.strip()}\n\nCommands:\n" + "\n".join(rows)


if __name__ == "__main__":
    main()
