"""The exception for user errors, as opposed to bugs."""

from collections.abc import Iterable, Sequence

SHOWN = 20  # rows of a list


class UserError(Exception):
    """Bad input, shown without a traceback; commands exit with status 2.

    Args:
      what: what is wrong and where, with the offending name or number.
      rule: what is required.
      remedy: what to do next, as a command where there is one.
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


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that is not among the known ones."""
    return UserError(
        f"unknown {kind} {name!r}.", rule=f"one of: {', '.join(sorted(known))}."
    )


def combine_errors(
    errors: Sequence[UserError], where: str, *, always: bool = False
) -> UserError:
    """Combine several errors into one, grouped by rule and remedy.

    A single error is returned unchanged, but if the line on `where` is needed `always`.
    """
    if len(errors) == 1 and not always:
        return errors[0]
    groups: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        groups.setdefault((error.rule, error.remedy), []).append(error.what)
    lines = [f"{pluralize(len(errors), 'fault')} in {where}:"]
    for (rule, remedy), rows in groups.items():
        lines.append(bullet_list(rows))
        lines += [f"    rule:  {rule}"] if rule else []
        lines += [f"    fix:   {remedy}"] if remedy else []
    return UserError("\n".join(lines))


def bullet_list(rows: Sequence[str]) -> str:
    """Indent rows, cut after `SHOWN` with a count of those not shown.

    A row of several lines, such as a list of faults, is indented as a whole.
    """
    shown = ["  " + row.replace("\n", "\n  ") for row in rows[:SHOWN]]
    if len(rows) > SHOWN:
        shown.append(f"  ... and {len(rows) - SHOWN} more")
    return "\n".join(shown)


def pluralize(n: int, noun: str) -> str:
    """Return "1 slice" or "2 slices"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
