"""The page of a run, index.html: how good, what is bad, how far to trust it."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from lungseg_jax.errors import counted
from lungseg_jax.evaluation import worst_first
from lungseg_jax.postprocess import POSTPROCESSING

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem;
       padding: 1rem; color: #1d2433; background: #fff; }
h1 { font-size: 1.4rem; margin: .3rem 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0; overflow-wrap: anywhere; } h3 + p { margin: 0; }
.pictures { display: grid; gap: .4rem; margin: .3rem 0;
            grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); }
@media (max-width: 34rem) { .pictures a:nth-child(3) { display: none; } }
.pair { display: grid; gap: .4rem;
        grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); }
.pictures img { display: block; width: 100%; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr));
         gap: .8rem; margin: 1rem 0; }
.card { border: 1px solid #dde; border-radius: .5rem; padding: .7rem 1rem; }
.card b { font-size: 2.1rem; line-height: 1.2; display: block; }
.card h2 { margin: 0; font-size: .95rem; font-weight: 600; color: #566; }
.card p { margin: .2rem 0 0; font-size: .92rem; overflow-wrap: anywhere; }
.bad { border-left: .35rem solid #c76f00; } .good { border-left: .35rem solid #2a7f4f; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid #dde; }
th:first-child, td:first-child, .words td:last-child { text-align: left; }
.scroll { overflow-x: auto; } .last { font-weight: 700; }
img { max-width: 100%; height: auto; } figcaption, .note { color: #566; }
figure { margin: 1rem 0; } summary { cursor: pointer; }
code { background: #f2f4f8; padding: .1rem .3rem; overflow-wrap: anywhere; }
"""
NAMED = 6  # slices that a card names
PIXELS = {"image": "all pixels", "boundary": "within 5 pixels of the boundary"}
BLIND = (
    "Images of poor quality are flagged; a lung that is filled with dense tissue need not "
    "be: it can be missing from the mask without a sign."
)
DOUBTS = {
    "expected_iou": "expected IoU",
    "disagreement": "disagreement of the members",
    "uncertainty": "mean entropy",
    "mutual_information": "mean mutual information",
}
PICTURES = {"mask": "mask and truth", "doubt": "doubt", "slice": "slice alone"}
METRICS = {
    "iou_pooled": ("IoU, pooled", "all pixels of all slices together"),
    "iou_mean": ("IoU", "mean over slices"),
    "dice_mean": ("Dice", "mean over slices"),
    "sensitivity_mean": ("sensitivity", "share of the true lung that is found"),
    "precision_mean": ("precision", "share of the mask that is lung"),
    "nsd_mean": ("NSD", "share of the boundary within the tolerance"),
    "hd95_mean": ("HD95", "95 % of the boundary lies nearer"),
    "assd_mean": ("ASSD", "mean distance of the boundaries"),
    "area_error_mean": ("area error", "signed, relative; + is too much"),
}
IN_UNIT = ("hd95_mean", "assd_mean")
COLUMNS = {
    "iou": ("IoU", ".4f"),
    "expected_iou": ("expected", ".3f"),
    "review": ("review", ""),
    "dice": ("Dice", ".4f"),
    "nsd": ("NSD", ".3f"),
    "hd95": ("HD95", ".1f"),
    "area_error": ("area error", "+.1%"),
    "disagreement": ("disagreement", ".1%"),
}


def text(
    evaluation: Mapping, title: str, *, cases: Mapping[str, str], trained: bool
) -> str:
    """The page, which needs the figures and slices.csv beside it and nothing else.

    Args:
      evaluation: what `scoring.score` returned.
      title: the heading.
      cases: the reason to show a slice, by its name; `picture_of` has their pictures.
      trained: whether there is a figure of the training.
    """
    split = evaluation.get("split", "labelled")
    seed = evaluation.get("split_seed")
    drawn = f" (split seed {seed})" if seed is not None else ""
    over = evaluation["intervals_over"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<div class="cards">{_quality_card(evaluation)}{_slices_card(evaluation)}
{_trust_card(evaluation)}</div>
{_trained_on(evaluation)}<p>Of {evaluation["n"]} {split} slices{
        drawn
    } at their own size, lung where the probability
is above {evaluation["threshold"]:g}. Intervals are a bootstrap over {
        over
    }: they say how much
a score depends on which {over} were drawn, not how another hospital's would do.</p>
<h2>Slices</h2>
<p>Outline: the mask. <b style="color:#c76f00">Orange</b> is too much,
<b style="color:#0b7fa5">blue</b> is missed; <b style="color:#c8202c">red</b> is where the
ensemble is unsure.</p>
{"".join(_case(evaluation, *one) for one in enumerate(cases.items()))}
<details><summary>All slices, worst first</summary>
<div class="scroll">{_slice_table(evaluation["slices"])}</div>
<p class="note"><a href="slices.csv">slices.csv</a> has more columns.</p></details>
<h2>Scores</h2>
<div class="scroll">{_metric_table(evaluation)}</div>
<p class="note">{_empty_policy(evaluation)}</p>
<h2>How far to trust it</h2>
<figure><div class="pair">{_image("expected.png", "True against expected IoU")}
{_image("risk.png", "Risk over coverage")}</div>
<figcaption>The expected IoU is computed from the probabilities, without the label. {
        _trust_words(evaluation)
    } {BLIND}</figcaption></figure>
<figure><div class="pair">{
        "".join(
            _image(f"calibration_{where}.png", f"Reliability, {title}")
            for where, title in PIXELS.items()
        )
    }</div>
<figcaption>{_calibration_words(evaluation["calibration"])}</figcaption></figure>
<h2>What the ensemble bought</h2>
<figure>{_image("scores.png", "Pooled IoU of members, choices and the ensemble")}
<figcaption>{_choice_words(evaluation)}</figcaption></figure>
<div class="scroll">{_choice_table(evaluation)}</div>
<h2>Clean-up of the masks</h2>
<div class="scroll">{_postprocessing_table(evaluation)}</div>
{_training() if trained else ""}
<p class="note">Not a medical device.</p>
</body></html>
"""


def picture_of(case: int, kind: str) -> str:
    """The file of a picture; `kind` is of `PICTURES`."""
    return f"case{case}_{kind}.png"


def _case(evaluation: Mapping, case: int, chosen: tuple[str, str]) -> str:
    name, why = chosen
    score = evaluation["slices"][name]
    iou = "no lung" if score["iou"] is None else f"IoU {score['iou']:.4f}"
    review = {True: ", flagged", False: ", not flagged", None: ""}[score["review"]]
    low = evaluation["uncertainty"]["low_iou"]
    is_low = score["iou"] is not None and score["iou"] < low
    if is_low and score["review"] is False:  # the ensemble is sure of it
        review += ": is the label right?"
    shown = html.escape(name)
    pictures = "".join(
        _image(picture_of(case, kind), f"{shown}: {words}")
        for kind, words in PICTURES.items()
    )
    return (
        f"<h3>{why}: {shown}</h3><p>{iou}, expected {score['expected_iou']:.3f}{review}"
        f'</p><div class="pictures">{pictures}</div>'
    )


def _training() -> str:
    return f"""<h2>Training</h2>
<figure>{_image("curves.png", "Loss and learning rate over steps")}
<figcaption>Dashed: snapshots, taken after the last update of each cycle.</figcaption>
</figure>
<p class="note">Numbers: evaluation.json, tuning.json and metrics.jsonl in the run
folder.</p>"""


def _trained_on(evaluation: Mapping) -> str:
    if not evaluation.get("trained_on"):
        return ""
    return (
        f"<p><b>{evaluation['trained_on']} of these slices the run was trained on: the "
        "scores say little of others.</b></p>"
    )


def _quality_card(evaluation: Mapping) -> str:
    scores = evaluation["ensemble"]
    low, high = (_number(x) for x in scores["iou_pooled_ci95"])
    dice = _number(scores["dice_mean"])
    is_good = (scores["iou_pooled"] or 0) >= evaluation["uncertainty"]["low_iou"]
    return (
        f'<div class="card {"good" if is_good else "bad"}"><h2>How good</h2>'
        f"<b>{_number(scores['iou_pooled'])}</b>"
        f"<p>pooled IoU, 95 % interval {low} to {high}; Dice {dice}, mean over slices</p>"
        "</div>"
    )


def _slices_card(evaluation: Mapping) -> str:
    low_iou = evaluation["uncertainty"]["low_iou"]
    slices = evaluation["slices"]
    ranked = worst_first(slices, only_scored=True)
    bad = [name for name in ranked if slices[name]["iou"] < low_iou]
    named = (bad or ranked[:1])[:NAMED]
    rows = ", ".join(f"{html.escape(n)} {slices[n]['iou']:.3f}" for n in named)
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    label = "" if bad else "the worst: "
    return (
        f'<div class="card {"bad" if bad else "good"}"><h2>Bad slices</h2>'
        f"<b>{len(bad)} of {len(ranked)}</b><p>have an IoU below {low_iou:g}; "
        f"{label}{rows}{more}</p></div>"
    )


def _trust_card(evaluation: Mapping) -> str:
    found = evaluation["uncertainty"]
    flagged = found["flagged"]
    if flagged is None:
        return (
            '<div class="card bad"><h2>Trust</h2><b>unknown</b><p>no validation split: '
            "nothing says which masks to review</p></div>"
        )
    caught = f"{found['flagged_low']} of {counted(found['n_low'], 'bad slice')}"
    if not found["n_low"]:
        caught = "no bad slice, as there is none"
    return (
        '<div class="card"><h2>Flagged for review</h2>'
        f"<b>{flagged} of {evaluation['n']}</b><p>among them {caught}; flagged is an "
        f"expected IoU below {found['review_below']:.3f}</p></div>"
    )


def _trust_words(evaluation: Mapping) -> str:
    found = evaluation["uncertainty"]
    if found["auroc"]["expected_iou"] is None:
        which = "All slices have" if found["n_low"] else "No slice has"
        return (
            f"{which} an IoU below {found['low_iou']:g}, so nothing can be said here of "
            "finding such slices."
        )
    rows = ", ".join(
        f"{label} {found['auroc'][key]:.3f}" for key, label in DOUBTS.items()
    )
    few = " With so few, these are anecdotes." if found["n_low"] < 10 else ""
    return (
        f"AUROC of finding the {found['n_low']} slices below {found['low_iou']:g}: "
        f"{rows}.{few}"
    )


def _calibration_words(calibration: Mapping) -> str:
    image, boundary = calibration["image"], calibration["boundary"]
    fitted = calibration["fitted_on"]
    by = (
        f"Temperature {calibration['temperature']:.3f}, fitted on the {fitted} split"
        if fitted
        else "No temperature was fitted: there is no validation split"
    )
    return (
        f"{by}. Expected calibration error of all pixels "
        f"{_number(image['before']['ece'])} before and "
        f"{_number(image['after']['ece'])} after; "
        f"near the boundary {_number(boundary['before']['ece'])} and "
        f"{_number(boundary['after']['ece'])}. Brier score of all pixels "
        f"{_number(image['before']['brier'])} and {_number(image['after']['brier'])}."
    )


def _choice_words(evaluation: Mapping) -> str:
    members = [s["iou_pooled"] or 0 for s in evaluation["members"].values()]
    together = evaluation["postprocessing"]["scores"]["none"]["iou_pooled"] or 0
    return (
        f"The mean of the members against the best one on these slices: "
        f"{together - max(members):+.4f}. "
        "Orange: as predict writes it, with the clean-up that was chosen."
    )


def _empty_policy(evaluation: Mapping) -> str:
    unit = evaluation["unit"]
    empty = counted(evaluation["ensemble"]["n_both_empty"], "slice")
    return (
        f"Distances in {unit}, NSD at {evaluation['tolerance']:g} {unit}. Slices empty in "
        f"truth and mask have no score ({empty}); one that is empty on one side scores "
        "0, and the image's diagonal as its distance."
    )


def _image(file: str, alt: str) -> str:
    """A figure that opens at its full size: on a phone it is small."""
    return f'<a href="{file}"><img src="{file}" alt="{alt}"></a>'


def _metric_table(evaluation: Mapping) -> str:
    scores, unit = evaluation["ensemble"], evaluation["unit"]
    rows = []
    for key, (label, meaning) in METRICS.items():
        low, high = scores[f"{key}_ci95"]
        shown = f"{label}, {unit}" if key in IN_UNIT else label
        value, interval = _number(scores[key]), f"{_number(low)} to {_number(high)}"
        rows.append(("", (shown, value, interval, meaning)))
    return _table(("", "value", "95 % interval", ""), rows, style="words")


def _choice_table(evaluation: Mapping) -> str:
    keys = ("iou_pooled", "iou_mean", "iou_min", "dice_mean")
    labelled = [
        (f"snapshot {step}", step, s) for step, s in evaluation["members"].items()
    ]
    for choice, found in evaluation["choices"].items():
        labelled.append((choice, ", ".join(found["members"]), found["scores"]))
    rows = [
        ("", (label, members, *(_number(s[k]) for k in keys)))
        for label, members, s in labelled
    ]
    mine = evaluation["ensemble"]
    final = ("as predict writes it", "", *(_number(mine[k]) for k in keys))
    return _table(("", "members", *keys), [*rows, ("last", final)])


def _postprocessing_table(evaluation: Mapping) -> str:
    keys = ("iou_pooled", "iou_mean", "iou_min")
    chosen = evaluation["postprocessing"]["chosen"]
    rows = [
        (
            "last" if name == chosen else "",
            (
                name,
                *(_number(s[k]) for k in keys),
                ("chosen; " if name == chosen else "") + POSTPROCESSING[name],
            ),
        )
        for name, s in evaluation["postprocessing"]["scores"].items()
    ]
    return _table(("", *keys, ""), rows, style="words")


def _slice_table(slices: Mapping[str, Mapping]) -> str:
    rows = []
    for name in worst_first(slices, only_scored=False):
        cells = [
            _cell(slices[name][key], format) for key, (_, format) in COLUMNS.items()
        ]
        rows.append(("", (name, *cells)))
    return _table(("slice", *(label for label, _ in COLUMNS.values())), rows)


def _table(
    head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], *, style: str = ""
) -> str:
    """Of cells of text; the table and each row have a class."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        f'<tr class="{of_row}">'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for of_row, cells in rows
    )
    return f'<table class="{style}"><tr>{top}</tr>{body}</table>'


def _cell(value: Any, format: str) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "review" if value else ""
    return f"{value:{format}}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
