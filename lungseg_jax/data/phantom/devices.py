"""Implants, tubes and wires."""

import numpy as np

from lungseg_jax.data.phantom.canvas import Canvas, blob
from lungseg_jax.data.phantom.patient import SIDES, Section
from lungseg_jax.data.phantom.solids import egg, make_tube

METAL_HU, PLASTIC_HU = 3000.0, 300.0
CHANCES = {
    "pacemaker": 0.04,  # with leads to the heart
    "sternal wires": 0.05,
    "catheter": 0.08,  # in the upper caval vein
    "gastric tube": 0.06,
    "electrodes": 0.12,  # on the skin, with cables
    "clips": 0.05,
}


def paint(canvas: Canvas, section: Section) -> None:
    """Paint the devices of a patient, each with its chance."""
    for name, chance in CHANCES.items():
        rng = section.stream(name)
        if rng.random() < chance:
            _DEVICES[name](canvas, section, rng)


def _paint_tube(canvas, section, controls, radius, hu) -> None:
    controls = np.array(controls) * [1, section.depth, 1]
    tube = make_tube(controls, radius, section.patient.height)
    canvas.paint_union(tube.section(section.z), hu)


def _pacemaker(canvas, section, rng) -> None:
    side = rng.choice(SIDES)
    front = section.ring(section.cavity + 0.6 * section.muscle + 0.3 * section.fat)
    at = front[int(side * rng.uniform(22, 32)) % len(front)]
    level = rng.uniform(0.12, 0.25)
    box = egg(section, rng, (*at, level), (0.16, 0.05, 0.08), tilt=0.4 * side)
    canvas.paint(box, METAL_HU)
    leads = [[side * 0.4, -0.5, 0.12], [-0.18, -0.3, 0.25], [-0.2, -0.2, 0.65]]
    _paint_tube(canvas, section, [*leads, [0.25, -0.5, 0.85]], 0.014, METAL_HU)


def _sternal_wires(canvas, section, rng) -> None:
    phase = (section.level / 0.09 + rng.uniform()) % 1
    if phase < 0.25 and 0.1 < section.level < 0.75:
        y = -section.depth * section.cavity[0] - 0.1
        for x in rng.uniform(-0.1, 0.1, 3):
            canvas.paint(blob(rng, (x, y), (0.018, 0.012)), METAL_HU)


def _catheter(canvas, section, rng) -> None:
    side = rng.choice(SIDES)
    end = rng.uniform(0.3, 0.55)
    line = [[side * 0.45, -0.5, 0.06], [-0.18, -0.35, 0.2], [-0.19, -0.25, end]]
    _paint_tube(canvas, section, line, 0.014, rng.uniform(300, 1500))


def _gastric_tube(canvas, section, rng) -> None:
    shift = section.patient.shift
    line = [[0.03, 0.1, -0.5], [0.03 + shift, 0.25, 0.3], [0.05, 0.2, 1], [0.4, 0, 1.2]]
    _paint_tube(canvas, section, line, 0.022, PLASTIC_HU)
    _paint_tube(canvas, section, line, 0.013, -900.0)


def _electrodes(canvas, section, rng) -> None:
    skin = section.ring(section.cavity + section.muscle + section.fat + 0.02)
    for index in range(9):
        own = section.stream("electrode", index)
        at = skin[own.integers(-60, 60)]
        at = at * (1 + abs(section.wave(own, 0.04)))
        hu, radius = own.uniform(-300, 1800), own.uniform(0.008, 0.02)
        # Stuck to the skin at one level, with a cable at some others.
        if own.random() < 0.6 and np.sin(own.uniform(0, 6) + 25 * section.level) > 0:
            canvas.paint(blob(own, at, (radius, radius)), hu)


def _clips(canvas, section, rng) -> None:
    for center in rng.uniform([-0.6, -0.6, 0.1], [0.6, 0.4, 1.3], (12, 3)):
        center = center * [1, section.depth, 1]
        part = egg(section, rng, center, (0.02, 0.012, 0.02))
        canvas.paint(part, METAL_HU)


_DEVICES = {
    "pacemaker": _pacemaker,
    "sternal wires": _sternal_wires,
    "catheter": _catheter,
    "gastric tube": _gastric_tube,
    "electrodes": _electrodes,
    "clips": _clips,
}
