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
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from getpass import getuser
from pathlib import Path

import numpy as np

from lungseg_jax.runtime.huge_pages import HUGE_PAGES, TUNABLES
from lungseg_jax.runtime.locks import exclusive_lock

CONTESTANTS = {"ours": "ours", "keras": "keras_unet", "torch": "torch_unet"}
SHARED = {
    TUNABLES: HUGE_PAGES,  # speeds up every contestant
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # they share the memory of a GPU
}


def parser(doc: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--model", choices=("conv", "inception"), default="inception")
    p.add_argument("--size", type=int, default=256, help="side of the images, pixels")
    p.add_argument("--batch", type=_integers, default=[8], help="such as 8 or 8,64")
    p.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    p.add_argument("--calls", type=int, default=1, help="that are timed as one")
    p.add_argument("--only", default="", help="contestants, such as ours,torch")
    p.add_argument("--json", default="", help="file for the figures")
    add_common(p)
    return p


def add_common(p: argparse.ArgumentParser) -> None:
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument(
        "--together",
        action="store_true",
        help="compile all at once: for hosts with many cores and a GPU",
    )
    p.add_argument("--verbose", action="store_true", help="show what the workers print")
    p.add_argument("--worker", default="", help=argparse.SUPPRESS)


def _integers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def examples(args) -> tuple[np.ndarray, np.ndarray]:
    """Return images `[b s s 1]` and masks `[b s s]`, float32."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(*args.batch, args.size, args.size, 1))
    return images.astype(np.float32), (images[..., 0] > 0).astype(np.float32)


def race(args, name: str, build: Callable) -> None:
    """Run the contestants that are installed; print a table, and write JSON on request.

    Args:
      args: of `parser`.
      name: what is timed.
      build: `build(module, args)` returns the function to time; `args.batch` has one size.
    """
    if args.worker:
        module = importlib.import_module(f"contestants.{CONTESTANTS[args.worker]}")
        about = {"label": module.LABEL}
        work(lambda: (build(module, args), about), module, calls=args.calls)
        return
    chosen = args.only.split(",") if args.only else list(CONTESTANTS)
    workers = {
        (batch, contestant): ([f"--worker={contestant}", f"--batch={batch}"], {})
        for batch in args.batch
        for contestant in chosen
    }
    results = take_turns(workers, args)
    for batch in args.batch:
        shape = f"{args.model}, {batch} x {args.size} x {args.size}, {args.dtype}"
        print(f"{name}: {shape}; medians of {args.rounds} alternating rounds")
        rows = {c: r for (b, c), r in results.items() if b == batch}
        ours = rows["ours"]["ms"] if "ours" in rows else None
        for r in rows.values():
            print(
                f"  {r['label']:28} {r['ms']:8.1f} ms  ({r['best_ms']:.1f} at best)"
                f"  {r['ms'] / (ours or r['ms']):5.2f}x"
                f"  {1e3 * batch / r['ms']:7.1f} images/s"
                f"  peak {r['peak_mb']:6.0f} MB  first call {r['compile_s']:5.1f} s"
            )
    if args.json:
        setting = {k: getattr(args, k) for k in ("model", "size", "dtype", "calls")}
        rows = [{"batch": b, "contestant": c} | r for (b, c), r in results.items()]
        text = json.dumps({"timed": name, "setting": setting, "rows": rows}, indent=2)
        Path(args.json).write_text(text + "\n")


def work(build: Callable[[], tuple[Callable, dict]], library, *, calls: int) -> None:
    """Run a worker: build a function, then time some calls for each line of stdin.

    An untimed call precedes the timed ones, because the other workers have replaced the
    contents of the caches.

    Args:
      build: returns the function, and what to say of it.
      library: `library.wait(result)` returns when the result of the function is there;
        `library.device_memory()` is the most memory that it had on an accelerator, in
        bytes. If that is None, the peak is that of the process.
      calls: that are timed as one.
    """
    start = time.perf_counter()
    call, about = build()
    library.wait(call())
    first = time.perf_counter() - start
    library.wait(call())
    _say(about | {"compile_s": round(first, 1)})
    for _ in sys.stdin:
        library.wait(call())
        start = time.perf_counter()
        results = [call() for _ in range(calls)]
        library.wait(results[-1])
        seconds = (time.perf_counter() - start) / calls
        peak = library.device_memory()
        if peak is None:
            peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _say({"ms": 1e3 * seconds, "peak_mb": peak / 1e6})


def _say(message: dict) -> None:
    print("> " + json.dumps(message), flush=True)


def take_turns(
    workers: Mapping[object, tuple[Sequence[str], Mapping[str, str]]], args
) -> dict[object, dict]:
    """Start workers of this program and time them alternately.

    Args:
      workers: by name, the arguments and the environment that differ from ours.
      args: see `add_common`.

    Returns:
      By name, without those that failed: what they say of themselves, "ms" (the median),
      "best_ms" and "peak_mb".
    """
    running, results = {}, {}
    try:
        if args.together:
            running = {n: _Worker(*how, args.verbose) for n, how in workers.items()}
        for name, how in workers.items():
            if name not in running:
                running[name] = _Worker(*how, args.verbose)
            if (about := running[name].listen()) is None:
                print(f"{name}: not installed, or failed; skipped", file=sys.stderr)
                running.pop(name)
                continue
            results[name] = about
            running[name].pause()
        with exclusive_lock(Path(tempfile.gettempdir()) / f"{getuser()}-timing.lock"):
            print("timing", file=sys.stderr, flush=True)
            for name, times in _time(running, args.rounds).items():
                results[name] |= times
    finally:
        for worker in running.values():
            worker.kill()
    return results


def _time(running: Mapping[object, "_Worker"], rounds: int) -> dict[object, dict]:
    answers = {name: [] for name in running}
    for _ in range(rounds):
        for name, worker in running.items():
            if (answer := worker.ask()) is None:
                raise SystemExit(f"{name}: ended during the timing; see --verbose")
            answers[name].append(answer)
    for worker in running.values():
        worker.close()
    return {
        name: {
            "ms": statistics.median(answer["ms"] for answer in given),
            "best_ms": min(answer["ms"] for answer in given),
            "peak_mb": given[-1]["peak_mb"],
        }
        for name, given in answers.items()
    }


class _Worker:
    """A process that answers each line with the time of a call.

    It is stopped in between, because the idle threads of some libraries spin.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], verbose: bool
    ):
        self._process = subprocess.Popen(
            [sys.executable, *sys.argv, *arguments],
            env=SHARED | os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if verbose else subprocess.DEVNULL,
            text=True,
        )

    def listen(self) -> dict | None:
        """Return the next message, or None if the worker has ended."""
        for line in self._process.stdout:
            if line.startswith("> "):
                return json.loads(line[2:])
        return None

    def ask(self) -> dict | None:
        """Return the time of a call, or None if the worker has ended."""
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        if (answer := self.listen()) is not None:
            self.pause()
        return answer

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.close()
        self._process.wait()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()  # a process that is stopped, too
            self._process.wait()
