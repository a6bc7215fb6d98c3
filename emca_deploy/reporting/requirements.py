"""The report of `gate`: a table, and the error of requirements that are not met."""

from math import ceil
from typing import TYPE_CHECKING

from emca_deploy.errors import GateError
from emca_deploy.reporting.formats import NONE, plain, significant
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.requirements import Decision, RequirementsReport

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["interval_text", "missed_requirements", "needed_text", "print_requirements", "value_text"]


def print_requirements(report: RequirementsReport, console: "Console") -> None:
    """Print a row for each decision, and what would decide the undecided ones."""
    say(console, f"requirements, by intervals of {report.confidence_percent:g} %", "bold")
    rows = [(_cells(each), each.verdict != "pass") for each in report.decisions]
    show_table(console, ("candidate", "requirement", "value", "interval", "verdict"), rows, left=2)
    for each in report.decisions:
        if needed := needed_text(each):
            say(console, f"{plain(each.candidate)}, {each.requirement}: {needed}")
    for note in report.notes:
        say(console, plain(note))


def _cells(decision: Decision) -> tuple[str, ...]:
    return plain(decision.candidate), decision.requirement, value_text(decision), interval_text(decision), decision.verdict


def value_text(decision: Decision) -> str:
    """Return the estimate with its unit."""
    return f"{significant(decision.value)} {decision.unit}"


def interval_text(decision: Decision) -> str:
    """Return the interval, such as "2.1 to 3.4", "at least 2.1", or "-" where there is none."""
    low, high = decision.low, decision.high
    if low is None and high is None:
        return NONE
    if low is None:
        return f"at most {significant(high)}"
    return f"at least {significant(low)}" if high is None else f"{significant(low)} to {significant(high)}"


def needed_text(decision: Decision) -> str:
    """Return what would decide an undecided requirement; "" where it is decided."""
    if decision.verdict != "undecided":
        return ""
    if decision.images_needed is not None:
        return f"about {decision.images_needed:,} images like these would decide"
    if decision.seconds_needed is not None:
        return f"about {ceil(decision.seconds_needed):,} s of measuring like this would decide; {decision.hint}"
    return decision.hint or "more measurements like these would not decide"


def missed_requirements(report: RequirementsReport) -> GateError:
    """Return the error of a report that does not pass."""
    missed = [*report.of("fail"), *(() if report.allow_undecided else report.of("undecided"))]
    said = [f"{each.candidate}: {each.requirement} {_what(each)}" for each in missed]
    undecided = next((each for each in missed if each.verdict == "undecided"), None)
    remedy = "see the table" if undecided is None else f"{needed_text(undecided)}; --allow-undecided accepts it"
    if any(each.verdict == "fail" for each in missed):
        remedy = "deploy another model, or require less"
    return GateError("; ".join(said), remedy)


def _what(decision: Decision) -> str:
    if decision.verdict == "undecided":
        return f"is undecided ({value_text(decision)}, interval {interval_text(decision)})"
    return f"is not met ({value_text(decision)}, interval {interval_text(decision)})"
