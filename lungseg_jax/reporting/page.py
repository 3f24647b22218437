"""The page of a run, index.html: how good, what is bad, how far to trust it."""

import html
from collections.abc import Mapping

from lungseg_jax.reporting import cards, tables
from lungseg_jax.reporting.tables import number
from lungseg_jax.runtime.errors import pluralize

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


def render_page(
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
<div class="cards">{cards.quality(evaluation)}{cards.bad_slices(evaluation)}
{cards.flagged(evaluation)}</div>
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
<div class="scroll">{tables.of_slices(evaluation["slices"])}</div>
<p class="note"><a href="slices.csv">slices.csv</a> has more columns.</p></details>
<h2>Scores</h2>
<div class="scroll">{tables.of_metrics(evaluation)}</div>
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
<div class="scroll">{tables.of_choices(evaluation)}</div>
<h2>Clean-up of the masks</h2>
<div class="scroll">{tables.of_clean_up(evaluation)}</div>
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
        f"{number(image['before']['ece'])} before and "
        f"{number(image['after']['ece'])} after; "
        f"near the boundary {number(boundary['before']['ece'])} and "
        f"{number(boundary['after']['ece'])}. Brier score of all pixels "
        f"{number(image['before']['brier'])} and {number(image['after']['brier'])}."
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
    empty = pluralize(evaluation["ensemble"]["n_both_empty"], "slice")
    return (
        f"Distances in {unit}, NSD at {evaluation['tolerance']:g} {unit}. Slices empty in "
        f"truth and mask have no score ({empty}); one that is empty on one side scores "
        "0, and the image's diagonal as its distance."
    )


def _image(file: str, alt: str) -> str:
    """A figure that opens at its full size: on a phone it is small."""
    return f'<a href="{file}"><img src="{file}" alt="{alt}"></a>'
