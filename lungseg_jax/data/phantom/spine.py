"""The spine, from neck to sacrum."""

import numpy as np

from lungseg_jax.data.phantom.canvas import (
    Canvas,
    bezier,
    blob,
    closed_curve,
    rounded,
    stroke,
)
from lungseg_jax.data.phantom.chest_wall import SOFT_HU
from lungseg_jax.data.phantom.patient import SIDES, Section

VERTEBRA = 0.105  # height in levels
DISC_HU = 90.0
SURGERY_CHANCE, METAL_HU = 0.02, 3000.0


def paint(canvas: Canvas, section: Section) -> None:
    """Paint a vertebra or a disc, with processes and the heads of ribs beside it."""
    rng = section.stream("spine")
    patient, level = section.patient, section.level
    cortex, marrow = 0.75 * patient.cortex_hu, patient.marrow_hu
    size = rng.uniform(0.85, 1.05)
    phase = (level / VERTEBRA + rng.uniform()) % 1
    has_screws = rng.random() < SURGERY_CHANCE
    size *= 0.62 + 0.38 * section.progress(-0.3, 0.3) + 0.2 * section.progress(0.8, 1.5)
    at = np.array([0, section.spine_y])
    for line, width in _processes(section, rng, size, phase):
        line = bezier(np.array(line) * size + at)
        canvas.paint(stroke(line, rounded(len(line), width)), cortex)
        core = line[1:-1]
        canvas.paint(stroke(core, rounded(len(core), width - 0.035)), marrow)
    right = np.array([[0, -0.16], [0.13, -0.13], [0.17, 0], [0.12, 0.11], [0, 0.08]])
    body = closed_curve(np.concatenate([right, right[3:0:-1] * [-1, 1]]) * size)
    is_disc = phase > 0.82
    canvas.paint(
        body + at, cortex if abs(phase - 0.86) > 0.06 else 0.5 * (cortex + 100)
    )
    canvas.paint(body * 0.88 + at, DISC_HU if is_disc else marrow)
    for spot in rng.normal(0, 0.06, (0 if is_disc else 14, 2)):
        hu = marrow + rng.normal(0, 70)
        canvas.paint(blob(rng, spot * size + at, (0.03, 0.03)), hu, 0.5)
    canvas.paint(blob(rng, at + [0, 0.19 * size], (0.085, 0.075)), SOFT_HU)
    if has_screws and 0.2 < level < 2 and 0.2 < phase < 0.6:
        for side in SIDES:
            screw = np.array([[side * 0.2, 0.3], [side * 0.06, -0.05]]) * size + at
            canvas.paint(stroke(screw, 0.04), METAL_HU)


def _processes(section: Section, rng, size: float, phase: float):
    """Return lines and widths of arch and processes, which not every level shows."""
    back = section.skin[len(section.skin) // 2, 1] - section.spine_y
    tip = min(0.56, 0.9 * back / size)
    tilt, order = rng.normal(0, 0.01), rng.uniform(0, 1, 2)
    shows_process = (phase + order[0]) % 1 < 0.6
    shows_rib = (phase + order[1]) % 1 < 0.5 and 0 < section.level < 1.1
    parts = [([[0, 0.33], [0, 0.4], [tilt, tip]], 0.07)]
    for side in SIDES:
        parts.append(([[side * 0.13, 0.06], [side * 0.15, 0.32], [0, 0.37]], 0.075))
        if shows_process:
            line = [[side * 0.1, 0.16], [side * 0.18, 0.25], [side * 0.27, 0.3]]
            parts.append((line, 0.09))
        if shows_rib:
            line = [[side * 0.15, 0.03], [side * 0.24, 0.14], [side * 0.37, 0.25]]
            parts.append((line, 0.06))
    return parts
