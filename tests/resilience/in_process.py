"""Commands in the test's own process, which saves the seconds of starting one."""

import contextlib
import importlib
import io
import subprocess
import sys

from lungseg_jax.__main__ import COMMANDS
from lungseg_jax.cli import root
from lungseg_jax.runtime import progress


def run_command(name, argv, monkeypatch):
    """Run a command in this process; return its exit status and what it printed.

    The flags of `train` and `--quiet` are reset afterwards.
    """
    module = importlib.import_module(f"lungseg_jax.cli.{name}")
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    err = io.StringIO()
    status = 0
    try:
        with (
            monkeypatch.context() as m,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            m.setattr(sys, "argv", ["lungseg", name, *argv])
            m.setattr(progress, "_silent", False)
            if name == "train":
                del sys.argv[1]
                module.main()
            else:
                root.main(COMMANDS, None)
    except SystemExit as e:
        status = e.code
    finally:
        if name == "train":
            for flag in [f for f in module.FLAGS if f.split(".")[0] == "config"]:
                delattr(module.FLAGS, flag)
            module.FLAGS.unparse_flags()  # back to the defaults
    out.flush()
    printed = out.buffer.getvalue().decode()
    return subprocess.CompletedProcess([name, *argv], status, printed, err.getvalue())
