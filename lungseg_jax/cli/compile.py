"""Compile a recipe for devices that need not be there, and report how well it fits.

    lungseg compile --topology=v5e --config=incp_snapshot:full
    lungseg compile --topology=v5e:4x4 --config.train.batch_size=64
    lungseg compile --topology=h100:8 --config=conv:full --slices=10000 --json=report.json
    lungseg compile --topology=cpu:8 --config=configs/smoke.py

It compiles the update of a training for all devices and the prediction of a batch for one,
and reports whether they fit in memory, what they move, what the devices exchange, and the
time that follows. Nothing is trained, and no data are read. A TPU needs the extra [tpu], a
GPU the extra [gpu]; neither needs the hardware. A large recipe takes minutes. Times are
lower bounds or estimates, not measurements.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lungseg_jax.cli import app
from lungseg_jax.runtime.ahead_of_time.topology_names import parse_topology
from lungseg_jax.runtime.files import write_json
from lungseg_jax.runtime.outputs import check_outputs

if TYPE_CHECKING:
    from lungseg_jax.runtime.ahead_of_time.compile_report import CompileReport

PROGRAMS = ("train", "predict")


@app.command(__doc__, context_settings=app.WITH_CONFIG)
@click.option(
    "--topology",
    required=True,
    metavar="CHIP[:SHAPE]",
    help="Chips to compile for: cpu, h100, v4, v5e, v5p, v6e, and how many.",
)
@app.config_option
@click.option(
    "--slices",
    type=click.IntRange(1, 10**8),
    help="Slices of the training split; 240, or a batch if that is larger. "
    "config.data.extra_phantoms are on the device beside them.",
)
@click.option(
    "--program",
    "programs",
    type=click.Choice(PROGRAMS),
    multiple=True,
    help="Compile only this program.",
)
@click.option("--json", type=app.PATH, help="File for the report.")
@app.overwrite_option
@app.quiet_option
@app.config_words
def compile(
    topology: str,
    config: str,
    slices: int | None,
    programs: tuple[str, ...],
    json: Path | None,
    overwrite: bool,
    words: tuple[str, ...],
) -> None:
    from lungseg_jax.cli import train_flags

    check_outputs([json] if json else [], inputs=[], overwrite=overwrite)
    asked = parse_topology(topology)
    config_words = [f"--config={config}", *words]
    train_flags.check_words(config_words)
    from lungseg_jax.inference.ensemble.lowering import trace_predict
    from lungseg_jax.runtime import device_mesh, progress
    from lungseg_jax.runtime.ahead_of_time.compile_report import report_compilation
    from lungseg_jax.runtime.ahead_of_time.topologies import devices_of
    from lungseg_jax.training.programs import trace_train_steps

    devices = devices_of(asked)
    c = _config_for(len(devices), config_words)
    slices = slices or max(240, c.train.batch_size)
    every, first = device_mesh.make_mesh(devices), device_mesh.make_mesh(devices[:1])
    trace = {
        "train": lambda: trace_train_steps(c, every, slices),
        "predict": lambda: trace_predict(c, first),
    }
    written = {"topology": str(asked), "devices": len(devices), "config": c.name}
    for name in programs or PROGRAMS:
        used, batch = len(devices), c.train.batch_size
        data = f"; {slices + c.data.extra_phantoms} in memory"
        if name == "predict":
            used, batch, data = 1, c.evaluate.batch_size, ""
        progress.say(f"compiling {name} for {asked}: {batch} slices on {used}{data}")
        report = report_compilation(trace[name](), asked.chip, used)
        progress.answer(describe(report))
        written[name] = {"batch_size": batch} | dataclasses.asdict(report)
    if json:
        write_json(json, written)


def _config_for(devices: int, words: list[str]) -> Any:
    """Read the configuration that a training on so many devices would have."""
    from lungseg_jax.cli import train_flags
    from lungseg_jax.training.scaling import scale_to_devices

    c = train_flags.read_config(words)
    return scale_to_devices(c, devices) if c.train.batch_per_device else c


def describe(report: "CompileReport") -> str:
    """Describe what one device does, as text."""
    fits = {None: "", True: ", which fits", False: ", which does not fit"}[report.fits]
    if report.refusal:
        return f"  memory:      does not fit: {report.refusal}"
    peak, arguments = report.peak_bytes / 1e9, report.argument_bytes / 1e9
    logical, padded = report.moved.logical / 1e9, report.moved.padded / 1e9
    lines = [
        f"  memory:      {peak:.2f} GB at most{fits}; {arguments:.2f} GB are arguments",
        f"  moved:       {padded:.2f} GB, {logical:.2f} GB without padding; "
        f"{report.instructions} instructions",
        f"  arithmetic:  {report.flops / 1e9:.1f} GFLOP",
    ]
    times = {
        "at the bandwidth": report.bandwidth_s,
        "at peak arithmetic": report.arithmetic_s,
        "by the compiler": report.estimate_s,
    }
    shown = [f"{1e3 * s:.2f} ms {name}" for name, s in times.items() if s]
    lines += [f"  time:        {', '.join(shown)}"] if shown else []
    lines += [
        f"  {c.opcode}:  {c.count} of {c.dtype}, {c.bytes / 1e6:.3f} MB"
        for c in report.collectives
    ]
    wall, cpu = report.compile_s, report.compile_cpu_s
    return "\n".join([*lines, f"  compilation: {wall:.0f} s, {cpu:.0f} s of CPU"])
