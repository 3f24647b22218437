"""Huge pages for large arrays on the CPU."""

import os
import sys
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Restart this very command with huge pages enabled, where that can help.

    XLA's CPU client requests the gigabyte of a step's temporaries anew from the system at
    every call, and faulting it in by 4 KiB pages takes a good part of the step. glibc
    reads the setting only when a process starts, hence the restart. Nothing happens if
    GLIBC_TUNABLES is set already.
    """
    if sys.platform != "linux" or TUNABLES in os.environ or not SWITCH.exists():
        return
    if "[never]" in SWITCH.read_text():
        return
    environment = os.environ | {TUNABLES: HUGE_PAGES}
    os.execve(sys.executable, sys.orig_argv, environment)
