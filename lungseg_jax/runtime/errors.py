"""The one exception that is a user's mistake and not a fault of ours."""

from collections.abc import Sequence


class UserError(Exception):
    """Bad input: shown without a traceback, exit status 2.

    Args:
      what: what is wrong and where, with the offending name or number.
      rule: what is asked for.
      remedy: what the reader can do next, as a command where there is one.
    """

    def __init__(self, what: str, *, rule: str = "", remedy: str = ""):
        super().__init__(what)
        self.what = what
        self.rule = rule
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [f"error: {self.what}"]
        if self.rule:
            lines.append(f"rule:  {self.rule}")
        if self.remedy:
            lines.append(f"fix:   {self.remedy}")
        return "\n".join(lines)


def unknown_name(kind: str, name: str, known) -> UserError:
    """The error for a name that stands in no table of choices."""
    return UserError(
        f"unknown {kind} {name!r}.", rule=f"one of: {', '.join(sorted(known))}."
    )


def combine_errors(faults: Sequence[UserError], where: str) -> UserError:
    """Several faults as one error, by kind, each kind with its rule and remedy.

    One fault alone is its own error.
    """
    if len(faults) == 1:
        return faults[0]
    kinds: dict[tuple[str, str], list[str]] = {}
    for fault in faults:
        kinds.setdefault((fault.rule, fault.remedy), []).append(fault.what)
    lines = [f"{len(faults)} faults in {where}:"]
    for (rule, remedy), rows in kinds.items():
        lines.append(bullet_list(rows))
        lines += [f"    rule:  {rule}"] if rule else []
        lines += [f"    fix:   {remedy}"] if remedy else []
    return UserError("\n".join(lines))


def bullet_list(rows: Sequence[str], most: int = 20) -> str:
    """Indented rows, cut after `most` with a count of what is not shown."""
    shown = [f"  {row}" for row in rows[:most]]
    if len(rows) > most:
        shown.append(f"  ... and {len(rows) - most} more")
    return "\n".join(shown)


def pluralize(n: int, noun: str) -> str:
    """ "1 slice", "2 slices"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
