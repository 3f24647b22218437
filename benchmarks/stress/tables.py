"""Markdown tables of the results of `benchmarks/robustness.py`."""

from collections.abc import Mapping
from typing import Any

THRESHOLD = "ten lines"


def level_table(results: Mapping[str, Any]) -> str:
    """Return a row for each family and level: IoU, found lung and flags."""
    runs = results["runs"]
    head = ["change", "level", THRESHOLD]
    for run in runs:
        head += [run, "flagged"]
    rows = []
    for name, family in results["families"].items():
        for row in family["levels"]:
            cells = [name, format_level(row["level"], family["meaning"])]
            cells.append(_cell(row["scores"][THRESHOLD]))
            for run in runs:
                scores = row["scores"][run]
                cells += [_cell(scores), _percent(scores.get("flagged"))]
            rows.append(cells)
    return _markdown(head, rows)


def summary_table(results: Mapping[str, Any]) -> str:
    """Return a row for each family: mean over the moderate range, worst, and flags."""
    runs = results["runs"]
    head = ["change", "moderate range", f"{THRESHOLD}: mean", "worst"]
    for run in runs:
        head += [f"{run}: mean", "worst", "flagged", "below the ten lines at"]
    rows = []
    for name, family in results["families"].items():
        summary, meaning = family["summary"], family["meaning"]
        ten_lines, unit = summary[THRESHOLD], family["has_lung"]
        moderate = [format_level(level, "") for level in family["moderate"]]
        cells = [name, f"{_range(moderate)} {meaning}".strip()]
        cells += [_number(ten_lines["moderate_mean"], unit), _worst(ten_lines, unit)]
        for run in runs:
            own = summary[run]
            mean = _number(own["moderate_mean"], unit)
            interval = own["moderate_mean_ci95"]
            if interval:
                low, high = (_number(end, unit) for end in interval)
                mean += f" ({low} to {high})"
            cells += [mean, _worst(own, unit), _percent(own["flagged"]), _below(own)]
        rows.append(cells)
    return _markdown(head, rows)


def review_table(results: Mapping[str, Any]) -> str:
    """Return a row for each run: how well it knows which of its masks are bad."""
    head = ["run", "slices", "IoU below 0.95", "AUROC", "flagged", "others flagged"]
    rows = []
    for run, found in results["review"].items():
        area = "-" if found["auroc"] is None else f"{found['auroc']:.3f}"
        shares = [_percent(found[name]) for name in ("flagged_low", "flagged_others")]
        rows.append([run, str(found["n"]), str(found["low"]), area, *shares])
    return _markdown(head, rows)


def family_table(families: Mapping[str, Any]) -> str:
    """Return a row for each family: its levels, its moderate range, and what it does."""
    rows = []
    for name, family in families.items():
        levels, moderate = (
            ", ".join(format_level(level, "").replace(",", "") for level in group)
            for group in (family.levels, family.moderate)
        )
        if moderate == levels:
            moderate = "all"
        what = family.change.__doc__.strip().split("\n\n")[0].rstrip(".")
        what = " ".join(what.split())
        rows.append([name, family.meaning or "kind", levels, moderate, what])
    return _markdown(["change", "level", "levels", "moderate", "what it does"], rows)


def format_level(level: float | str, meaning: str) -> str:
    """Return a level with the first word of its meaning, its unit."""
    text = level if isinstance(level, str) else f"{level:g}"
    unit = meaning.split(" ")[0].rstrip(",")
    return f"{text} {unit}" if unit in ("mm", "HU") else text


def _range(levels: list[str]) -> str:
    is_numeric = all(level.lstrip("-").replace(".", "").isdigit() for level in levels)
    if len(levels) < 3:
        return ", ".join(levels)
    return f"{levels[0]} to {levels[-1]}" if is_numeric else f"{len(levels)} kinds"


def _cell(scores: Mapping[str, Any]) -> str:
    if "refused" in scores:
        return "refused"
    if "iou" not in scores:
        return f"{_number(scores['false_share'], False)}, empty {_percent(scores['empty'])}"
    found = scores.get("found")
    return _number(scores["iou"], True) + (
        "" if found is None else f", found {_percent(found)}"
    )


def _worst(summary: Mapping[str, Any], has_lung: bool) -> str:
    if summary["worst"] is None:
        return "-"
    level = format_level(summary["worst_level"], "")
    return f"{_number(summary['worst'], has_lung)} ({level})"


def _below(summary: Mapping[str, Any]) -> str:
    sure = [format_level(level, "") for level in summary["below_threshold"]]
    unsure = [format_level(level, "") for level in summary["perhaps_below_threshold"]]
    refused = [format_level(level, "") for level in summary["refused"]]
    parts = [", ".join(sure)] if sure else []
    parts += [f"perhaps {', '.join(unsure)}"] if unsure else []
    parts += [f"refused: {', '.join(refused)}"] if refused else []
    return "; ".join(parts) or "-"


def _number(value: float | None, has_lung: bool) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.3f}" if has_lung else f"{value:.1%} false".replace("%", " %")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}".replace("%", " %")


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
