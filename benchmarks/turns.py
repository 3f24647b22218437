"""Time contestants alternately, each in a process of its own.

Alternating spreads the noise of the machine evenly. Separate processes keep the memory of
the contestants apart, and their libraries from disturbing each other.
"""

import argparse
import importlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from lungseg_jax.runtime.huge_pages import HUGE_PAGES, TUNABLES

CONTESTANTS = {"ours": "ours", "keras": "keras_unet", "torch": "torch_unet"}


def parser(doc: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--model", choices=("conv", "inception"), default="inception")
    p.add_argument("--size", type=int, default=256, help="side of the images, pixels")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--only", default="", help="contestants, such as ours,torch")
    p.add_argument("--json", default="", help="file for the figures")
    p.add_argument("--worker", default="", help=argparse.SUPPRESS)
    return p


def examples(args) -> tuple[np.ndarray, np.ndarray]:
    """Return images `[b s s 1]` and masks `[b s s]`, float32."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(args.batch, args.size, args.size, 1))
    return images.astype(np.float32), (images[..., 0] > 0).astype(np.float32)


def work(args, build) -> None:
    """Run the worker: call `build(module, args)`, then time one call per line of stdin.

    An untimed call precedes each timed one, because the other workers have replaced the
    contents of the caches.
    """
    module = importlib.import_module(f"contestants.{CONTESTANTS[args.worker]}")
    start = time.perf_counter()
    call = build(module, args)
    call()
    first = time.perf_counter() - start
    call()
    _say({"label": module.LABEL, "compile_s": round(first, 1)})
    for _ in sys.stdin:
        call()
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        _say({"ms": 1e3 * seconds, "peak_mb": peak})


def _say(message: dict) -> None:
    print("> " + json.dumps(message), flush=True)


def race(args, name: str, build) -> None:
    """Run the contestants that are installed; print a table, and write JSON on request."""
    if args.worker:
        work(args, build)
        return
    chosen = args.only.split(",") if args.only else list(CONTESTANTS)
    workers, facts = {}, {}
    for contestant in chosen:
        worker = _Worker(contestant)
        facts[contestant] = worker.listen()
        if facts[contestant] is None:
            print(f"{contestant}: not installed, or failed; skipped", file=sys.stderr)
        else:
            workers[contestant] = worker
            worker.pause()
    times = {contestant: [] for contestant in workers}
    for _ in range(args.rounds):
        for contestant, worker in workers.items():
            answer = worker.ask()
            times[contestant].append(answer["ms"])
            facts[contestant]["peak_mb"] = answer["peak_mb"]
    for worker in workers.values():
        worker.close()
    medians = {c: statistics.median(t) for c, t in times.items()}
    shape = f"{args.model}, {args.batch} x {args.size} x {args.size}, {args.dtype}"
    print(f"{name}: {shape}; medians of {args.rounds} alternating rounds")
    for contestant, median in medians.items():
        f = facts[contestant]
        print(
            f"  {f['label']:28} {median:8.0f} ms  ({min(times[contestant]):.0f} at best)"
            f"  {median / medians.get('ours', median):5.2f}x"
            f"  peak {f['peak_mb']:6.0f} MB  first call {f['compile_s']:5.1f} s"
        )
    if args.json:
        result = {
            f"{name}_ms": medians,
            "peak_mb": {c: facts[c]["peak_mb"] for c in medians},
            "compile_s": {c: facts[c]["compile_s"] for c in medians},
            "label": {c: facts[c]["label"] for c in medians},
            "setting": {
                k: getattr(args, k) for k in ("model", "size", "batch", "dtype")
            },
        }
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


class _Worker:
    """A process that answers each line with the time of a call.

    It is stopped in between, because the idle threads of some libraries spin.
    """

    def __init__(self, contestant: str):
        command = [sys.executable, *sys.argv, f"--worker={contestant}"]
        self._process = subprocess.Popen(
            command,
            env={TUNABLES: HUGE_PAGES} | os.environ,  # which speed up every contestant
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def listen(self) -> dict | None:
        """Return the next message, or None if the worker has ended."""
        for line in self._process.stdout:
            if line.startswith("> "):
                return json.loads(line[2:])
        return None

    def ask(self) -> dict:
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self.listen()
        self.pause()
        return answer

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.close()
        self._process.wait()
