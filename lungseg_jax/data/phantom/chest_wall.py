"""The body wall at all levels: skin, fat, muscles, arms and bones but the spine."""

import numpy as np

from lungseg_jax.data.phantom.canvas import (
    Canvas,
    blob,
    closed_curve,
    rounded,
    stroke,
)
from lungseg_jax.data.phantom.patient import SIDES, Patient, Rng, Section

SUBCUTANEOUS_GAS_HU, SUBCUTANEOUS_GAS_CHANCE = -700.0, 0.03
FAT_HU = -100.0
SOFT_HU = 40.0
MUSCLE_HU = 50.0
CARTILAGE_HU = 110.0

RIBS, RIB_STEP, RIB_SLOPE = 12, 0.088, 0.5  # in levels; each descends towards the front


def paint(canvas: Canvas, section: Section) -> None:
    """Paint arms, skin, fat, muscles and bones, but not the spine."""
    _paint_arms(canvas, section)
    wall = section.cavity + section.muscle
    canvas.paint(section.skin, SOFT_HU)
    canvas.paint(section.ring(wall + section.fat - 0.012), FAT_HU)
    _paint_septa(canvas, section)
    canvas.paint(section.ring(wall), MUSCLE_HU)
    _paint_layers(canvas, section)
    if -0.05 < section.level < 0.6:
        _paint_scapulae(canvas, section)
    if section.level < 0.2:
        _paint_clavicles(canvas, section)
    _paint_ribs(canvas, section)
    if 0.08 < section.level < 0.9:
        _paint_sternum(canvas, section)
    if section.level > 1.9:
        _paint_pelvis(canvas, section)


def _arc(curve: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Return the part of a ring between two angles in degrees, `[16 2]`."""
    at = np.linspace(start, stop, 16) / 360 * len(curve)
    return curve[np.rint(at).astype(int) % len(curve)]


def _paint_layers(canvas: Canvas, section: Section) -> None:
    """Paint the layers of fat that separate muscles and, in a few patients, gas."""
    rng = section.stream("layers")
    has_gas = rng.random() < SUBCUTANEOUS_GAS_CHANCE
    spots = [(rng.uniform(0.3, 0.95), FAT_HU) for _ in range(14)]
    spots += [(rng.uniform(0.4, 1.3), SUBCUTANEOUS_GAS_HU) for _ in range(10)]
    for index, (share, hu) in enumerate(spots):
        own = section.stream("layer", index)
        start = own.uniform(0, 360) + 40 * section.wave(own, 1.0)
        share = share + 0.1 * section.wave(own, 1.0)
        span, drift, width = own.uniform([15, 0.97, 0.01], [60, 1.03, 0.03])
        if hu == FAT_HU or has_gas:
            layer = section.ring(section.cavity + share * section.muscle)
            arc = _arc(layer, start, start + span)
            arc = arc * np.linspace(1, drift, len(arc))[:, None]
            canvas.paint(stroke(arc, rounded(len(arc), width)), hu, 0.8)


def _paint_septa(canvas: Canvas, section: Section) -> None:
    """Paint thin strands of tissue and vessels within the fat."""
    outer = section.cavity + section.muscle
    for index in range(10):
        rng = section.stream("septum", index)
        start, share = rng.uniform(0, 360), rng.uniform(0.15, 0.85)
        start += 60 * section.wave(rng, 1.0)
        arc = _arc(
            section.ring(outer + share * section.fat), start, start + rng.uniform(3, 18)
        )
        arc = arc * np.linspace(1, rng.uniform(0.97, 1.03), len(arc))[:, None]
        canvas.paint(
            stroke(arc, rounded(len(arc), rng.uniform(0.004, 0.012))), 0.0, 0.6
        )


def _paint_arms(canvas: Canvas, section: Section) -> None:
    """Paint the arms: raised, they are beside the neck; else beside the body."""
    patient, level = section.patient, section.level
    is_up = patient.arms == "up" and level < 0.05
    is_down = patient.arms == "down" and 0.16 < level < 2.3
    if not (is_up or is_down):
        return
    for side in SIDES:
        rng = section.stream("arm", side)
        gap, y, radius = rng.uniform([0.02, -0.1, 0.15], [0.25, 0.25, 0.22])
        radius *= (0.7 + 0.3 * patient.muscle) + 0.8 * patient.fat
        if is_up:
            radius *= 1.3
            x = side * (abs(section.skin[:, 0]).max() + gap + 0.1 + 0.5 * radius)
        else:
            radius *= 1.15 - 0.3 * section.progress(0.3, 2)
            x = side * (abs(section.skin[:, 0]).max() + 0.3 * gap + radius)
        _paint_arm(canvas, patient, rng, (x, y), radius, is_forearm=level > 1.2)


def _paint_arm(
    canvas: Canvas,
    patient: Patient,
    rng: Rng,
    center: tuple[float, float],
    radius: float,
    *,
    is_forearm: bool,
) -> None:
    fat = float(np.clip(1 - 1.2 * patient.fat, 0.6, 0.92))
    canvas.paint(blob(rng, center, (radius, 1.2 * radius)), SOFT_HU)
    canvas.paint(blob(rng, center, (0.95 * radius, 1.15 * radius)), FAT_HU)
    canvas.paint(blob(rng, center, (fat * radius, 1.15 * fat * radius)), MUSCLE_HU)
    bones = [(0.0, 0.3)] if not is_forearm else [(-0.4, 0.2), (0.4, 0.2)]
    for offset, share in bones:
        at = center[0], center[1] + offset * radius
        canvas.paint(blob(rng, at, (share * radius,) * 2), patient.cortex_hu)
        canvas.paint(blob(rng, at, (0.6 * share * radius,) * 2), SOFT_HU)


def _paint_bone(
    canvas: Canvas, patient: Patient, line: np.ndarray, width: float, cortex: float
) -> None:
    """Paint a long bone: marrow in a shell of cortex with thickness `cortex`."""
    canvas.paint(stroke(line, rounded(len(line), width)), patient.cortex_hu)
    core = rounded(len(line) - 2, max(width - 2 * cortex, 0.004))
    canvas.paint(stroke(line[1:-1], core), patient.marrow_hu)


def _paint_scapulae(canvas: Canvas, section: Section) -> None:
    for side in SIDES:
        rng = section.stream("scapula", side)
        share, start, stop, tilt = rng.uniform(
            [0.5, 96, 130, 0.93], [0.75, 116, 152, 1.04]
        )
        shrink = section.progress(0.35, 0.6)
        stop = stop - (stop - start) * 0.7 * shrink
        blade = section.ring(section.cavity + share * section.muscle + 0.06)
        line = _arc(blade, side * start, side * stop)
        tilts = np.linspace(1, tilt, len(line))
        bend = 0.05 * np.linspace(-1, 1, len(line)) ** 2
        _paint_bone(
            canvas, section.patient, line * (tilts + bend)[:, None], 0.045, 0.016
        )
        if section.level < 0.12:  # the head of the upper arm, and its socket
            edge = section.ring(section.cavity + 0.62 * section.muscle)
            at = _arc(edge, side * 88, side * 92)[8]
            radius = 0.17 * (1 - section.progress(0.05, 0.12))
            canvas.paint(
                blob(rng, at, (radius, radius)), 0.7 * section.patient.cortex_hu
            )
            canvas.paint(blob(rng, at, (0.85 * radius,) * 2), section.patient.marrow_hu)


def _paint_clavicles(canvas: Canvas, section: Section) -> None:
    """Paint the collar bones, which rise from the sternum to the shoulders."""
    for side in SIDES:
        rng = section.stream("clavicle", side)
        top, slope = rng.uniform(-0.08, -0.02), rng.uniform(0.1, 0.2)
        middle = 15 + 75 * np.clip((top + slope - section.level) / slope, -1, 2)
        if 8 < middle < 90:
            ring = section.ring(section.cavity + 0.6 * section.muscle)
            line = _arc(ring, side * (middle - 14), side * (middle + 14))
            _paint_bone(canvas, section.patient, line, rng.uniform(0.07, 0.1), 0.02)


def _paint_ribs(canvas: Canvas, section: Section) -> None:
    """Paint ribs, each cut obliquely by the slice; towards the front, only cartilage."""
    for side in SIDES:
        for k in range(RIBS):
            rng = section.stream("rib", side * (k + 1))
            top = -0.04 + RIB_STEP * (k + rng.uniform(-0.3, 0.3))
            slope = RIB_SLOPE * min(rng.uniform(0.8, 1.2) * (0.4 + 0.05 * k), 1.1)
            width, span, drift, bone = rng.uniform(
                [0.04, 0.04, 1, 30], [0.07, 0.065, 1.05, 45]
            )
            share = (section.level - top) / slope
            length = 145 * span / slope
            last = 20 if k < 8 else 30 + 20 * (k - 8)  # the lower ribs end early
            start = 160 - 145 * share - length / 2
            if not 0 < share or start < last or start + length > 165:
                continue
            lifted = section.ring(section.cavity + 0.02 + width / 2)
            line = _arc(lifted, side * start, side * (start + length))
            line = line * np.linspace(1, drift, len(line))[:, None]
            if start > bone:
                _paint_bone(canvas, section.patient, line, width, 0.016)
            else:
                canvas.paint(stroke(line, rounded(len(line), width)), CARTILAGE_HU)


def _paint_sternum(canvas: Canvas, section: Section) -> None:
    patient, rng = section.patient, section.stream("sternum")
    front = np.array([-section.depth * section.cavity[0] - 0.055])
    shape = np.array(
        [
            [-0.17, -0.03],
            [0, -0.05],
            [0.17, -0.03],
            [0.12, 0.03],
            [0, 0.02],
            [-0.12, 0.03],
        ]
    )
    center = np.append(rng.normal(0, 0.02), front)
    narrow = 1 - 0.5 * section.progress(0.65, 0.9)
    shape = shape * [rng.uniform(0.6, 1.15) * narrow, rng.uniform(0.9, 1.3)]
    canvas.paint(closed_curve(shape) + center, 0.8 * patient.cortex_hu)
    canvas.paint(closed_curve(shape * [0.88, 0.66]) + center, patient.marrow_hu)


def _paint_pelvis(canvas: Canvas, section: Section) -> None:
    """Paint the wings of the pelvis and, further down, the heads of the thigh bones."""
    patient, level = section.patient, section.level
    for side in SIDES:
        rng = section.stream("pelvis", side)
        width = rng.uniform(0.06, 0.1)
        if level < 2.5:
            ring = section.ring(section.cavity + 0.45 * section.muscle)
            start = 75 + 25 * section.progress(2.0, 2.5)
            stop = start + 70 * section.progress(1.85, 2.2)
            _paint_bone(
                canvas, patient, _arc(ring, side * start, side * stop), width, 0.02
            )
        else:
            at = side * rng.uniform(0.68, 0.76), 0.1 * section.depth
            for radius, hu in (
                (0.24, 0.8 * patient.cortex_hu),
                (0.21, patient.marrow_hu),
            ):
                canvas.paint(blob(rng, at, (radius, radius)), hu)
