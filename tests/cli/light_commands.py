"""Run commands, JSON on standard input, and fail at the first that imports HEAVY."""

import contextlib
import io
import json
import sys

from lungseg_jax.__main__ import main

HEAVY = {"numpy", "jax", "cv2", "SimpleITK", "scipy"}

lines = json.load(sys.stdin)
for words in lines:
    sys.argv = ["lungseg", *words]
    errors = io.StringIO()
    status = 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as e:
            status = e.code or 0
    expected = 0 if words[-1] in ("--help", "--list") else 2
    assert status == expected, (words, status, errors.getvalue())
    assert not HEAVY & set(sys.modules), (words, HEAVY & set(sys.modules))
print(f"{len(lines)} commands")
