"""Time the update of a recipe against the limit of memory bandwidth, setting by setting.

    python benchmarks/recipe_step.py --config=smoke
    python benchmarks/recipe_step.py train.batch_size=2 train.batch_size=8,model.norm=group
    python benchmarks/recipe_step.py --together --config=incp_snapshot:full \
        "" train.batch_size=64 XLA_FLAGS=--xla_gpu_enable_command_buffer=      # on a GPU

A setting holds keys of the recipe, `config` for another recipe, and environment variables,
separated by commas; an empty one leaves all as it is. Each is compiled in a process of its
own, and they are timed in turn, `train.steps_per_dispatch` updates in one call. With few
channels, a U-Net does little arithmetic per byte: the table has the bytes that all
instructions of an update move, counted as `lungseg compile` does, and the time they would
take at the bandwidth of a plain copy. The data are random. --trace writes a profile of the
first settings for TensorBoard, and a list of the kernels of a GPU by their time.
"""

import argparse
import collections
import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import turns
from contestants import ours
from timing import median_seconds

from lungseg_jax.cli.train_flags import read_config
from lungseg_jax.runtime import device_mesh, huge_pages
from lungseg_jax.runtime.ahead_of_time.hlo import measure_traffic
from lungseg_jax.training.programs import init_of, lower_train_steps
from lungseg_jax.training.recipe_files import find_recipe

COPIED = 2**30  # bytes, larger than any cache


def copy_bandwidth() -> float:
    """Measure the bytes read and written per second."""
    x = jnp.zeros(COPIED // 4, jnp.float32)
    # Donated and written in place, as a step reuses its buffers.
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    box = [x]

    def call():
        box[0] = add(box[0]).block_until_ready()

    return 2 * COPIED / median_seconds(call, 9)


def words_of(setting: str, recipe: str) -> tuple[list[str], dict[str, str]]:
    """Return the options for `train`, and the environment, that a setting asks for."""
    options, environment = [], {}
    for word in filter(None, setting.split(",")):
        key, _, value = word.partition("=")
        if key.isupper():
            environment[key] = value
        elif key == "config":
            recipe = value
        else:
            options.append(f"--config.{word}")
    return [f"--config={find_recipe(recipe)}", *options], environment


def build(args):
    """Compile the updates; return a function that makes one dispatch, and the figures."""
    options, _ = words_of(args.settings[int(args.worker)], args.config)
    c = read_config(options)
    c.train.batch_per_device = 0  # the batch is that of the setting
    mesh = device_mesh.make_mesh(jax.devices()[:1])
    start = time.perf_counter()
    lowered = lower_train_steps(c, mesh, args.slices)
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    state, images, masks, indices, _ = lowered.args_info[0]
    rng = np.random.default_rng(0)
    # A state of another `init_of` has the same leaves, but other functions.
    leaves = jax.tree.leaves(init_of(c, mesh)())
    box = [jax.tree.unflatten(jax.tree.structure(state), leaves)]
    images = device_mesh.place(
        rng.integers(-1000, 400, images.shape, np.int16).astype(images.dtype),
        device_mesh.replicated(mesh),
    )
    masks = device_mesh.place(
        rng.integers(0, 2, masks.shape, np.uint8).astype(masks.dtype),
        device_mesh.replicated(mesh),
    )
    indices = device_mesh.place(
        rng.integers(0, args.slices, indices.shape, np.int32),
        device_mesh.by_example(mesh, axis=1),
    )

    def call():
        box[0], metrics = compiled(box[0], images, masks, indices, np.int32(steps))
        return metrics

    steps, batch = indices.shape
    # XLA's CPU backend does not say how much it needs.
    is_cpu = jax.devices()[0].platform == "cpu"
    expected = 0 if is_cpu else compiled.memory_analysis().peak_memory_in_bytes
    # Of one update: how many there are in a call is an argument.
    traffic = measure_traffic(compiled.as_text())
    return call, {
        "device": jax.devices()[0].device_kind,
        "seconds": seconds,
        "steps": steps,
        "batch": batch,
        "moved_gb": traffic.moved.padded / 1e9,
        "instructions": traffic.instructions,
        "expected_peak_gb": expected / 1e9,
    }


def profile(call, folder: Path, setting: str) -> None:
    """Profile one call, and list the kernels by their time beside the profile."""
    with jax.profiler.trace(str(folder)):
        ours.wait(call())
    file = max(folder.rglob("*.xplane.pb"), key=os.path.getmtime)
    times, counts = collections.Counter(), collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines if "/device:" in plane.name else ():
            for event in line.events if line.name.startswith("Stream") else ():
                times[event.name] += event.duration_ns
                counts[event.name] += 1
    total = f"{counts.total()} kernels, {times.total() / 1e6:.2f} ms"
    lines = [f"{setting or 'as it is'}: {total}"]
    lines += [
        f"{nanoseconds / 1e6:9.3f} ms {counts[name]:6} {name[:100]}"
        for name, nanoseconds in times.most_common()
    ]
    (folder / "kernels.txt").write_text("\n".join(lines) + "\n")


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("settings", nargs="*", default=[""], metavar="KEY=VALUE,...")
    p.add_argument("--config", default="incp_snapshot")
    p.add_argument(
        "--slices", type=int, default=240, help="of the split; phantoms come on top"
    )
    p.add_argument("--trace", default="", help="folder for profiles")
    p.add_argument("--traces", type=int, default=1, help="settings to profile")
    p.add_argument("--json", default="", help="file for the figures")
    turns.add_common(p)
    args = p.parse_args()
    if args.worker:
        call, about = build(args)
        turns.work(lambda: (call, about), ours, calls=1)
        if args.trace and int(args.worker) < args.traces:
            setting = args.settings[int(args.worker)]
            profile(call, Path(args.trace) / args.worker, setting)
        return
    workers = {
        setting: ([f"--worker={i}"], words_of(setting, args.config)[1])
        for i, setting in enumerate(args.settings)
    }
    results = turns.take_turns(workers, args)
    bandwidth = copy_bandwidth() / 1e9  # GB/s
    print(f"{args.config}, an update; medians of {args.rounds} alternating rounds")
    print(f"{jax.devices()[0].device_kind}, a copy moves {bandwidth:.0f} GB/s")
    for setting, r in results.items():
        ms = r["ms"] / r["steps"]
        peak = f"{r['peak_mb'] / 1e3:.2f} GB"
        if r["expected_peak_gb"]:
            peak += f" (expected {r['expected_peak_gb']:.2f})"
        r |= {"step_ms": ms, "images_per_s": 1e3 * r["batch"] / ms}
        r["at_bandwidth_ms"] = 1e3 * r["moved_gb"] / bandwidth
        print(
            f"  {setting or 'as it is':44} batch {r['batch']:4} {ms:9.2f} ms "
            f"{r['images_per_s']:8.1f} images/s  {r['moved_gb']:7.2f} GB, "
            f"{r['at_bandwidth_ms']:8.2f} ms at that rate  "
            f"{r['instructions']:5} instructions  peak {peak}  "
            f"compiled in {r['seconds']:.0f} s"
        )
    if args.json:
        rows = [{"setting": s} | r for s, r in results.items()]
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    huge_pages.restart_with_huge_pages()
    main()
