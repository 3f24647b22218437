"""The page of a run, report/index.html, and its figures; the only matplotlib here."""

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lungseg_jax.data.pairs import Slice
from lungseg_jax.run_folder import RunFolder, write_text

TRUE, PREDICTED, LINE = "#35d0ff", "#ff9f1c", "#3b4cc0"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem;
       padding: 1rem; color: #1d2433; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.headline { font-size: 2.6rem; font-weight: 700; line-height: 1.2; margin: .5rem 0; }
.headline small { font-size: 1rem; font-weight: 400; color: #566; display: block; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid #dde; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; } .last { font-weight: 700; }
img { max-width: 100%; height: auto; } figcaption, .note { color: #566; }
figure { margin: 1rem 0; } summary { cursor: pointer; }
code { background: #f2f4f8; padding: .1rem .3rem; overflow-wrap: anywhere; }
"""


def write(
    folder: RunFolder,
    evaluation: dict,
    *,
    title: str,
    window_hu: tuple[float, float],
    read: Callable[[Sequence[str]], Iterator[Slice]],
    segment: Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]],
) -> None:
    """Writes index.html and its PNG figures into the run's report folder.

    Args:
      folder: of the run; metrics.jsonl is read from it.
      evaluation: what `evaluate.score` returned.
      title: the heading.
      window_hu: pixel values shown as black and as white.
      read: the slices of some names.
      segment: the members' probabilities `[m h w]` of images.
    """
    folder.report.mkdir(parents=True, exist_ok=True)
    rows = folder.read_metrics()
    _save(_curves(rows), folder.report / "curves.png")
    _save(_scores(evaluation), folder.report / "scores.png")
    chosen = _choose(evaluation["slices"])
    cases = {}
    names = list(dict.fromkeys(chosen.values()))
    images = [one.image for one in read(names)]
    for one, probabilities in zip(read(names), segment(images), strict=True):
        cases[one.name] = one, probabilities
    threshold = evaluation["threshold"]
    figure = _cases(
        {label: cases[name] for label, name in chosen.items()},
        evaluation["slices"],
        threshold,
        window_hu,
    )
    _save(figure, folder.report / "slices.png")
    write_text(folder.page, _page(evaluation, title))


def _choose(slices: dict) -> dict[str, str]:
    """Names by the reason to show them: by the ensemble's IoU, and by disagreement."""
    scored = sorted(
        (name for name in slices if slices[name]["iou"] is not None),
        key=lambda name: slices[name]["iou"],
    )
    by_disagreement = sorted(slices, key=lambda name: slices[name]["disagreement"])
    chosen = {"members disagree most": by_disagreement[-1]}
    if scored:
        ranked = {
            "best": scored[-1],
            "median": scored[len(scored) // 2],
            "worst": scored[0],
        }
        chosen = ranked | chosen
    return chosen


def _curves(rows: list[dict]) -> Figure:
    """Loss above, learning rate below, over steps; snapshots marked in both."""
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    train = [row for row in rows if row["kind"] == "train"]
    steps = [row["step"] for row in train]
    above.plot(steps, [row["loss"] for row in train], color=LINE, label="training")
    checked = [row for row in rows if row["kind"] != "train" and "loss" in row]
    if checked:
        above.plot(
            [row["step"] for row in checked],
            [row["loss"] for row in checked],
            "o-",
            color=PREDICTED,
            markersize=4,
            label="validation",
        )
    below.plot(steps, [row["learning_rate"] for row in train], color=LINE)
    for i, row in enumerate(row for row in rows if row["kind"] == "snapshot"):
        for axes in (above, below):
            label = "snapshot" if i == 0 and axes is above else None
            axes.axvline(row["step"], color="#888", linestyle="--", lw=1, label=label)
    above.set_yscale("log")
    above.set_ylabel("loss")
    above.legend(frameon=False)
    below.set_ylabel("learning rate")
    below.set_xlabel("updates applied")
    _plain(above, below)
    return figure


def _scores(evaluation: dict) -> Figure:
    """Pooled IoU of each member and of the ensemble, with its interval."""
    labelled = [
        (f"snapshot {step}", scores) for step, scores in evaluation["members"].items()
    ] + [("ensemble", evaluation["ensemble"])]
    figure = Figure(figsize=(9, 0.9 + 0.42 * len(labelled)), layout="constrained")
    axes = figure.subplots()
    for y, (label, scores) in enumerate(reversed(labelled)):
        low, high = scores["iou_pooled_ci95"]
        if low is None:
            continue
        color = PREDICTED if label == "ensemble" else LINE
        axes.plot([low, high], [y, y], color=color, lw=2)
        axes.plot(scores["iou_pooled"], y, "o", color=color)
        axes.annotate(
            f"{scores['iou_pooled']:.4f}",
            (scores["iou_pooled"], y),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(labelled)), [label for label, _ in reversed(labelled)])
    axes.set_ylim(-0.6, len(labelled) - 0.3)
    axes.set_xlabel("pooled IoU, line: 95 % of bootstrap resamples of the slices")
    _plain(axes)
    return figure


def _cases(cases: dict, slices: dict, threshold: float, window_hu) -> Figure:
    """A row for each case: the slice, both outlines, where the members disagree."""
    figure = Figure(figsize=(9, 3.15 * len(cases)), layout="constrained")
    grid = figure.subplots(len(cases), 3, squeeze=False)
    for (label, (one, probabilities)), axes in zip(cases.items(), grid, strict=True):
        for ax in axes:
            ax.imshow(one.image, cmap="gray", vmin=window_hu[0], vmax=window_hu[1])
            ax.set_axis_off()
        score = slices[one.name]
        iou = "no lung" if score["iou"] is None else f"IoU {score['iou']:.4f}"
        axes[0].set_title(
            f"{label}:\n{one.name}",
            fontsize=9,
            loc="left",
            parse_math=False,  # a name may hold a $
        )
        axes[1].set_title(f"truth and ensemble, {iou}", fontsize=9, loc="left")
        axes[2].set_title(
            f"disagreement {score['disagreement']:.1%}", fontsize=9, loc="left"
        )
        _outline(axes[1], one.mask > 0, TRUE)
        _outline(axes[1], probabilities.mean(axis=0) > threshold, PREDICTED)
        spread = probabilities.std(axis=0)
        shown = axes[2].imshow(
            np.ma.masked_less(spread, 0.02), cmap="inferno", vmin=0, vmax=0.5, alpha=0.9
        )
        figure.colorbar(shown, ax=axes[2], shrink=0.75, label="spread of probability")
    return figure


def _outline(axes, mask: np.ndarray, color: str) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=[color], linewidths=0.9)


def _plain(*all_axes) -> None:
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure).print_png(str(path))


def _page(evaluation: dict, title: str) -> str:
    ensemble = evaluation["ensemble"]
    low, high = (_number(x) for x in ensemble["iou_pooled_ci95"])
    split = evaluation.get("split", "labelled")
    seed = evaluation.get("split_seed")
    drawn = f" (split seed {seed})" if seed is not None else ""
    members = len(evaluation["members"])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p class="headline">{_number(ensemble["iou_pooled"])}
<small>pooled IoU of the ensemble of {members}; 95 % interval {low} to {high}</small></p>
<p>{evaluation["n"]} {split} slices{drawn} at their own size, lung where the probability
is above {evaluation["threshold"]:g}. The interval is a bootstrap over slices: it says how
much the score depends on which slices were drawn, not how another hospital's would do.</p>
<h2>Scores</h2>
<div class="scroll">{_score_table(evaluation)}</div>
<figure>{_image("scores.png", "Pooled IoU of each member and of the ensemble")}</figure>
<h2>Slices</h2>
<figure>{_image("slices.png", "Best, median and worst slices")}
<figcaption>Outlines: <b style="color:#0b93bd">blue true</b>,
<b style="color:#c76f00">orange ensemble</b>. Right: standard deviation of the members'
probabilities; "disagreement" is the share of pixels that some member calls lung and not
all do.</figcaption></figure>
<details><summary>All slices, worst first</summary>
<div class="scroll">{_slice_table(evaluation["slices"])}</div></details>
<h2>Training</h2>
<figure>{_image("curves.png", "Loss and learning rate over steps")}
<figcaption>Dashed: snapshots, taken after the last update of each cycle.</figcaption>
</figure>
<p class="note">Numbers: evaluation.json and metrics.jsonl in the run folder.
Not a medical device.</p>
</body></html>
"""


def _image(file: str, alt: str) -> str:
    """A figure that opens at its full size: on a phone it is small."""
    return f'<a href="{file}"><img src="{file}" alt="{alt}"></a>'


def _score_table(evaluation: dict) -> str:
    columns = ("iou_pooled", "iou_mean", "iou_min", "dice_pooled", "dice_mean")
    labelled = [
        ("", f"snapshot {step}", s) for step, s in evaluation["members"].items()
    ] + [("last", "ensemble", evaluation["ensemble"])]
    head = "".join(f"<th>{c}</th>" for c in ("", *columns))
    body = "".join(
        f'<tr class="{style}"><td>{label}</td>'
        + "".join(f"<td>{_number(s[c])}</td>" for c in columns)
        + "</tr>"
        for style, label, s in labelled
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _slice_table(slices: dict) -> str:
    def by_iou(name):
        iou = slices[name]["iou"]
        return 2.0 if iou is None else iou

    body = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{_number(slices[name]['iou'])}</td>"
        f"<td>{slices[name]['disagreement']:.1%}</td></tr>"
        for name in sorted(slices, key=by_iou)
    )
    head = "<tr><th>slice</th><th>IoU</th><th>disagreement</th></tr>"
    return f"<table>{head}{body}</table>"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
