"""Run commands, JSON on standard input, and fail at the first that imports HEAVY.

Each is a pair: its words, and what its error says; the error is empty for help.
"""

import contextlib
import io
import json
import sys

from lungseg_jax.__main__ import main
from lungseg_jax.cli.train import FLAGS

HEAVY = {"numpy", "jax", "cv2", "SimpleITK", "scipy"}

lines = json.load(sys.stdin)
for words, message in lines:
    FLAGS.unparse_flags()  # back to the defaults
    sys.argv = ["lungseg", *words]
    errors = io.StringIO()
    status = 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as e:
            status = e.code or 0
    assert status == (2 if message else 0), (words, status, errors.getvalue())
    assert message in errors.getvalue(), (words, errors.getvalue())
    assert not HEAVY & set(sys.modules), (words, HEAVY & set(sys.modules))
print(f"{len(lines)} commands")
