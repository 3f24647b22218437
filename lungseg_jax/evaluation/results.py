"""What evaluation.json says, in the order in which people look at it."""

from collections.abc import Mapping

from lungseg_jax.runtime.errors import pluralize


def labelled_scores(evaluation: Mapping) -> list[tuple[str, Mapping]]:
    """What is compared: snapshots, choices, and last what `predict` writes."""
    rows = [(f"snapshot {step}", s) for step, s in evaluation["members"].items()]
    for choice, found in evaluation["choices"].items():
        if choice in ("last", "best", "greedy") and len(found["members"]) == 1:
            continue  # a row of its own already
        rows.append((f"{choice} ({len(found['members'])})", found["scores"]))
    return [*rows, ("as predict writes it", evaluation["ensemble"])]


def worst_first(slices: Mapping[str, Mapping], *, only_scored: bool) -> list[str]:
    """Names by their IoU; slices without one come last."""

    def by_iou(name):
        iou = slices[name]["iou"]
        return 2.0 if iou is None else iou

    kept = [n for n in slices if not only_scored or slices[n]["iou"] is not None]
    return sorted(kept, key=by_iou)


def format_summary(evaluation: Mapping) -> str:
    """The scores as lines: members, choices of them, and what `predict` writes."""
    columns = ("iou_pooled", "iou_mean", "iou_min", "dice_mean")
    lines = [
        f"{'':20}" + "".join(f"{c:>12}" for c in columns) + "   95 % of iou_pooled"
    ]
    for label, s in labelled_scores(evaluation):
        low, high = s["iou_pooled_ci95"]
        lines.append(
            f"{label:20}"
            + "".join(f"{_number(s[c]):>12}" for c in columns)
            + f"   {_number(low)} to {_number(high)}"
        )
    n, threshold = evaluation["n"], evaluation["threshold"]
    mirrored = ", averaged over mirror images" if evaluation.get("flips") else ""
    lines.append(
        f"{pluralize(n, 'slice')} at full size, threshold {threshold:g}{mirrored}"
    )
    doubts = evaluation["uncertainty"]
    if doubts["flagged"] is not None:
        lines.append(
            f"{doubts['flagged']} of {n} flagged for review, among them "
            f"{doubts['flagged_low']} of {doubts['n_low']} with an IoU below "
            f"{doubts['low_iou']:g}"
        )
    if evaluation.get("trained_on"):
        lines.append(
            f"{evaluation['trained_on']} of {n} are slices that the run was trained on: "
            "these scores say little of others"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
