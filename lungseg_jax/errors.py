"""The one exception that is a user's mistake and not a fault of ours."""


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
