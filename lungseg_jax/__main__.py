"""The command `lungseg`; `python -m lungseg_jax` is the same.

lungseg train    --config=configs/incp_snapshot.py
lungseg predict  --run=runs/incp_snapshot-phantom slice.tif mask.png
lungseg COMMAND --help
"""

import difflib
import runpy
import sys

# Each is a module of its own, which `python -m lungseg_jax.MODULE` runs as well.
COMMANDS = {
    "train": ("main", "trains a U-Net, ensembles its snapshots, scores them, reports"),
    "predict": ("cli.predict", "masks for slices, folders, volumes, DICOM series"),
    "evaluate": ("cli.evaluate", "scores a run on a labelled folder"),
    "compare": ("cli.compare", "scores masks, whoever made them, against true ones"),
    "export": ("cli.export", "a trained ensemble as one folder to share"),
    "check": ("cli.check", "what is in a data folder, or all that is wrong with it"),
    "verify": ("cli.verify", "whether a run or a bundle is whole, to the bit"),
}


def main() -> None:
    """Runs the command that the first word names; exit status 2 where it names none."""
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
    sys.argv = [sys.argv[0], *words[1:]]
    module = f"lungseg_jax.{COMMANDS[name][0]}"
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _help() -> str:
    rows = [f"  {name:9} {what}" for name, (_, what) in COMMANDS.items()]
    return f"{__doc__.strip()}\n\nCommands:\n" + "\n".join(rows)


if __name__ == "__main__":
    main()
