"""Huge pages for the arrays of a training on the CPU."""

import os
import sys
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Starts this very command again with huge pages, where that can help.

    XLA's CPU client takes the gigabyte of a step's temporaries fresh from the system at
    every call, and faulting it in by pages of 4 KiB costs a good part of the step. glibc
    reads the setting when a process starts, hence a new one. Who sets GLIBC_TUNABLES is
    left alone.
    """
    if sys.platform != "linux" or TUNABLES in os.environ or not SWITCH.exists():
        return
    if "[never]" in SWITCH.read_text():
        return
    environment = os.environ | {TUNABLES: HUGE_PAGES}
    os.execve(sys.executable, sys.orig_argv, environment)
