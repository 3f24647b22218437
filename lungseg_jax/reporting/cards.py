"""The three answers at the top of the page, as HTML."""

import html
from collections.abc import Mapping

from lungseg_jax.evaluation.results import worst_first
from lungseg_jax.reporting.tables import number
from lungseg_jax.runtime.errors import pluralize

NAMED = 6  # slices that a card names


def quality(evaluation: Mapping) -> str:
    """How good the masks are."""
    scores = evaluation["ensemble"]
    low, high = (number(x) for x in scores["iou_pooled_ci95"])
    dice = number(scores["dice_mean"])
    is_good = (scores["iou_pooled"] or 0) >= evaluation["uncertainty"]["low_iou"]
    return (
        f'<div class="card {"good" if is_good else "bad"}"><h2>How good</h2>'
        f"<b>{number(scores['iou_pooled'])}</b>"
        f"<p>pooled IoU, 95 % interval {low} to {high}; Dice {dice}, mean over slices</p>"
        "</div>"
    )


def bad_slices(evaluation: Mapping) -> str:
    """How many slices are bad, and which."""
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


def flagged(evaluation: Mapping) -> str:
    """How many are flagged for review, and how many of these are bad."""
    found = evaluation["uncertainty"]
    if found["flagged"] is None:
        return (
            '<div class="card bad"><h2>Trust</h2><b>unknown</b><p>no validation split: '
            "nothing says which masks to review</p></div>"
        )
    caught = f"{found['flagged_low']} of {pluralize(found['n_low'], 'bad slice')}"
    if not found["n_low"]:
        caught = "no bad slice, as there is none"
    return (
        '<div class="card"><h2>Flagged for review</h2>'
        f"<b>{found['flagged']} of {evaluation['n']}</b><p>among them {caught}; flagged "
        f"is an expected IoU below {found['review_below']:.3f}</p></div>"
    )
