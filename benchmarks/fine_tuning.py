"""Scores after training from scratch and from weights, by slices and steps.

    python benchmarks/fine_tuning.py DATA
    python benchmarks/fine_tuning.py DATA --slices=10,40 --steps=50,300 --out=fine_tuning

DATA holds 2d_images/ and 2d_masks/. Its test split (seed 3) and its validation split, a
tenth each, are held out; trainings see some slices of the rest. All are those of
`configs/incp_snapshot.py`, in one cycle and without phantoms: from scratch at the rate of
its variant `:scratch`, from the weights of the package at that of the recipe. Prints the
pooled IoU of the held-out slices at their own size, at threshold 0.5, with a 95 % bootstrap
interval over slices; of the weights as they are, too, and of the ten-line threshold. --out
writes the same as Markdown and as a figure.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from contestants.threshold import threshold_lungs

from lungseg_jax.data.pairs import Pair, find_pairs, read_slice
from lungseg_jax.data.splits import split_names
from lungseg_jax.experiment import run_experiment
from lungseg_jax.inference.ensemble.location import PRETRAINED
from lungseg_jax.inference.segmenter import load
from lungseg_jax.metrics.overlap import count_pixels, summarize
from lungseg_jax.runtime import progress
from lungseg_jax.training.recipes import fine_tuning, laptop

SCRATCH, WEIGHTS = "from scratch", "from the weights"


def score(masks: Sequence[np.ndarray], held_out) -> tuple[float, float, float]:
    """Return the pooled IoU and its interval."""
    rows = [count_pixels(m, s.mask > 0) for m, s in zip(masks, held_out, strict=True)]
    scores = summarize(rows, resamples=2000)
    return scores["iou_pooled"], *scores["iou_pooled_ci95"]


def score_run(path: Path | str, held_out) -> tuple[float, float, float]:
    segmentations = load(path, members="last").stream(s.image for s in held_out)
    return score([segmentation.mask for segmentation in segmentations], held_out)


def train(pairs: Sequence[Pair], folder: Path, *, steps: int, init: str, rate: float):
    """Train on these pairs; return the run folder."""
    data, run = folder / "data", folder / "run"
    for pair in pairs:
        for name, path in (("2d_images", pair.image), ("2d_masks", pair.mask)):
            (data / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, data / name)
    c = fine_tuning()
    c.data.dir, c.data.extra_phantoms = str(data), 0
    c.data.leave_out_air = False  # as many slices as the table says
    c.data.validation_fraction, c.data.test_fraction = 0.0, 1e-6  # one slice, unused
    c.init = init
    c.schedule.cycles, c.schedule.peak = 1, rate
    c.schedule.growth = c.schedule.peak_decay = 1.0  # of one cycle
    c.train.total_steps = c.train.save_every = c.train.validate_every = steps
    run_experiment(c, str(run))
    return run


def table(rows: Sequence[tuple], baselines: dict[str, tuple]) -> str:
    lines = [f"| slices | steps | {SCRATCH} | {WEIGHTS} |", "| --- | --- | --- | --- |"]
    for count, steps, scores in rows:
        cells = [cell(scores[way]) for way in (SCRATCH, WEIGHTS)]
        lines.append(f"| {count} | {steps} | {' | '.join(cells)} |")
    lines += [f"\n{name}: {cell(value)}" for name, value in baselines.items()]
    return "\n".join(lines)


def cell(value: tuple[float, float, float]) -> str:
    return "{:.4f} ({:.4f} to {:.4f})".format(*value)


def draw(path: Path, rows: Sequence[tuple], baselines: dict[str, tuple]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = sorted({count for count, _, _ in rows})
    figure, axes = pyplot.subplots(
        1, len(counts), figsize=(3.2 * len(counts), 3.2), sharey=True, squeeze=False
    )
    for axis, count in zip(axes[0], counts, strict=True):
        for way, color in ((SCRATCH, "#c76f00"), (WEIGHTS, "#3b4cc0")):
            points = [(s, *scores[way]) for n, s, scores in rows if n == count]
            steps, middle, low, high = np.array(points).T
            axis.plot(steps, middle, "o-", color=color, label=way)
            axis.fill_between(steps, low, high, color=color, alpha=0.15, lw=0)
        for (name, value), style in zip(baselines.items(), ("--", ":"), strict=True):
            axis.axhline(value[0], color="#566", ls=style, lw=1, label=name)
        axis.set_title(f"{count} slices", fontsize=10)
        axis.set(xscale="log", xlabel="steps of 8 slices")
        axis.set_xticks(steps, [f"{s:g}" for s in steps], minor=False)
        axis.minorticks_off()
    axes[0, 0].set_ylabel("pooled IoU, 48 slices held out")
    axes[0, -1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--slices", default="10,40,191")
    parser.add_argument("--steps", default="50,100,300")
    parser.add_argument("--init", default=PRETRAINED, help="a run or a bundle")
    parser.add_argument("--out", type=Path, help="without a suffix")
    args = parser.parse_args()
    pairs = {pair.name: pair for pair in find_pairs(args.data)}
    split = split_names(list(pairs), validation_fraction=0.1, test_fraction=0.1, seed=3)
    held_out = [read_slice(pairs[name]) for name in split["test"] + split["validation"]]
    baselines = {
        "the weights as they are": score_run(args.init, held_out),
        "ten lines": score([threshold_lungs(s.image) for s in held_out], held_out),
    }
    progress.silence()
    rows = []
    for count in map(int, args.slices.split(",")):
        for steps in map(int, args.steps.split(",")):
            ways = {
                SCRATCH: ("", laptop().schedule.peak),
                WEIGHTS: (args.init, fine_tuning().schedule.peak),
            }
            scores = {}
            for way, (init, rate) in ways.items():
                start = time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    chosen = [pairs[name] for name in split["train"][: count + 1]]
                    run = train(chosen, Path(folder), steps=steps, init=init, rate=rate)
                    scores[way] = score_run(run, held_out)
                seconds = time.perf_counter() - start
                text = f"{count} slices, {steps} steps, {way}: {cell(scores[way])}"
                print(f"{text} ({seconds:.0f} s)", flush=True)
            rows.append((count, steps, scores))
    text = table(rows, baselines)
    print(f"\n{text}")
    if args.out:
        args.out.with_suffix(".md").write_text(text + "\n")
        draw(args.out.with_suffix(".png"), rows, baselines)


if __name__ == "__main__":
    main()
