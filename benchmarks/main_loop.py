"""The overhead of the command: its start, and the loop around the train step.

    python benchmarks/main_loop.py                        # five minutes on two CPU cores
    python benchmarks/main_loop.py --config=configs/conv.py --rounds=3

Prints the seconds from the start of the command to its first update with nothing compiled
(cold) and with everything compiled (warm), where the phantoms are prepared in both cases;
then, alternately, the steps per second of the command, including its log, and of the bare
step.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lungseg_jax.runtime.huge_pages import HUGE_PAGES, TUNABLES

CHECKOUT = Path(__file__).resolve().parent.parent
STEPS = 60


def run_main(args, cache: Path, *, steps: int, log_every: int) -> tuple[float, float]:
    """Run the command; return the seconds to its first row and the steps per second."""
    with tempfile.TemporaryDirectory() as workdir:
        settings = {
            "cache_dir": cache,
            "data.phantom_slices": args.slices,
            "schedule.cycles": 1,
            "train.total_steps": steps,
            "train.log_every": log_every,
            "train.save_every": 10**6,
            "train.validate_every": 10**6,
        }
        command = [sys.executable, "-m", "lungseg_jax.main", f"--config={args.config}"]
        command += [f"--config.{key}={value}" for key, value in settings.items()]
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command, f"--workdir={workdir}/run"],
            cwd=CHECKOUT,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache / "xla")},
            stdout=subprocess.DEVNULL,
        )
        metrics = Path(workdir, "run", "metrics.jsonl")
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                sys.exit("the command ended before its first update")
            time.sleep(0.02)
        first = time.perf_counter() - start
        process.wait()
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    rates = [row["steps_per_second"] for row in rows if row["kind"] == "train"]
    return first, statistics.median(rates[1:] or rates)


def run_bare(args) -> float:
    """Return the steps per second of the bare step, measured in a separate process."""
    command = [sys.executable, *sys.argv, "--worker"]
    environment = {TUNABLES: HUGE_PAGES} | os.environ
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def work(args) -> None:
    """Time the bare step on the recipe's shapes, awaited every ten steps like the log."""
    import jax
    import numpy as np

    from lungseg_jax.runtime import device_mesh
    from lungseg_jax.training.programs import init_of, train_steps_of
    from lungseg_jax.training.recipe_files import load_recipe

    c = load_recipe(args.config)
    mesh = device_mesh.make_mesh(jax.devices()[:1])
    state, step = init_of(c, mesh)(), train_steps_of(c, mesh)
    size, n = c.data.image_size, int(0.8 * args.slices)
    rng = np.random.default_rng(0)
    images = rng.integers(-1000, 400, (n, size, size, 1), np.int16)
    images = jax.device_put(images)
    masks = jax.device_put(rng.random((n, size, size), np.float32))
    indices = jax.device_put(np.arange(c.train.batch_size)[None])
    rates = []
    for _ in range(STEPS // 10):
        start = time.perf_counter()
        for _ in range(10):
            state, metrics = step(state, images, masks, indices, 1)
        metrics["loss"].block_until_ready()
        rates.append(10 / (time.perf_counter() - start))
    print(statistics.median(rates[1:]))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/incp_snapshot.py")
    parser.add_argument("--slices", type=int, default=40, help="phantoms to draw")
    parser.add_argument("--rounds", type=int, default=2, help="of the loop; 0 skips it")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch)
        run_main(args, cache, steps=2, log_every=1)  # draws and prepares the phantoms
        (cache / "xla").rename(cache / "xla.before")
        cold, _ = run_main(args, cache, steps=2, log_every=1)
        warm = [run_main(args, cache, steps=2, log_every=1)[0] for _ in range(3)]
        print(f"start to first update: cold {cold:.1f} s, warm {min(warm):.1f} s")
        pairs = []
        for _ in range(args.rounds):
            main_rate = run_main(args, cache, steps=STEPS, log_every=10)[1]
            pairs.append((main_rate, run_bare(args)))
            print("steps per second: main {:.3f}, bare step {:.3f}".format(*pairs[-1]))
    if pairs:
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"main runs at {100 * ratio:.0f} % of the bare step")


if __name__ == "__main__":
    main()
