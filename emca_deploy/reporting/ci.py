"""The report of `gate` for continuous integration: JUnit's XML, GitHub's annotations, and Markdown for a pull request."""

from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path

from emca_deploy._optional import import_optional
from emca_deploy.reporting.formats import plain
from emca_deploy.reporting.requirements import interval_text, needed_text, value_text
from emca_deploy.results.requirements import Decision, RequirementsReport

__all__ = ["annotations", "junit_writer", "markdown_text", "write_markdown"]

_MARKS = {"pass": "\N{WHITE HEAVY CHECK MARK}", "fail": "\N{CROSS MARK}", "undecided": "\N{WARNING SIGN}"}
_MARKDOWN = "\\`*_{}[]#!|~@"
_SUITE = "emca-deploy gate"


def _said(decision: Decision) -> str:
    against = f" against {decision.baseline}" if decision.baseline else ""
    needed = needed_text(decision)
    said = f"{decision.requirement}: {decision.verdict}, {value_text(decision)} (99.8 %: {interval_text(decision)}){against}"
    return plain(f"{said}; {needed}" if needed else said)


def _tolerated(decision: Decision, report: RequirementsReport) -> bool:
    return decision.verdict == "undecided" and report.allow_undecided


def junit_writer() -> Callable[[RequirementsReport, Path], None]:
    """Return the function that writes a report as JUnit's XML: a test case for each decision, skipped where undecided is allowed.

    Raises:
        MissingError: junitparser is not installed.
    """
    junit = import_optional("junitparser")

    def write(report: RequirementsReport, path: Path) -> None:
        suite = junit.TestSuite(_SUITE)
        for decision in report.decisions:
            case = junit.TestCase(plain(decision.requirement), classname=plain(decision.candidate), time=0)
            if _tolerated(decision, report):
                case.result = [junit.Skipped(_said(decision), "undecided")]
            elif decision.verdict != "pass":
                case.result = [junit.Failure(_said(decision), decision.verdict)]
            case.system_out = plain(f"{_said(decision)}; {decision.method}")
            suite.add_testcase(case)
        xml = junit.JUnitXml(_SUITE)
        xml.add_testsuite(suite)
        xml.write(str(path))

    return write


def annotations(report: RequirementsReport) -> Iterator[str]:
    """Yield a workflow command of GitHub Actions for each decision that does not pass, and a notice if all do."""
    for decision in report.decisions:
        if decision.verdict != "pass":
            level = "warning" if _tolerated(decision, report) else "error"
            title = _property(f"{plain(decision.candidate)}: {decision.requirement}")
            yield f"::{level} title={title}::{_message(_said(decision))}"
    if len(report.of("pass")) == len(report.decisions):
        yield f"::notice title={_property(_SUITE)}::{_message(f'{len(report.decisions)} requirements pass')}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def write_markdown(report: RequirementsReport, path: Path) -> None:
    """Write a report as a table for the comment of a pull request."""
    passed = "all requirements pass" if report.passed else "requirements are not met"
    lines = [f"### {_MARKS['pass' if report.passed else 'fail']} {passed}", ""]
    lines += [f"| | candidate | requirement | value | {report.confidence_percent:g} % interval |", "|---|---|---|---|---|"]
    for each in report.decisions:
        cells = (
            _code(each.candidate),
            _code(each.requirement),
            markdown_text(value_text(each)),
            markdown_text(interval_text(each)),
        )
        lines.append(f"| {_MARKS[each.verdict]} {each.verdict} | {' | '.join(cells)} |")
    needed = [
        f"- {_code(each.candidate)}, {_code(each.requirement)}: {markdown_text(needed_text(each))}"
        for each in report.of("undecided")
    ]
    path.write_text("\n".join([*lines, *([""] if needed else []), *needed, ""]), encoding="utf-8")


def _code(text: str) -> str:
    """Return foreign text as code: neither Markdown, HTML nor a mention of somebody."""
    return f"<code>{markdown_text(text)}</code>"


def markdown_text(text: str) -> str:
    """Return foreign text for a Markdown document, in which it stays text."""
    return "".join(f"&#{ord(char)};" if char in _MARKDOWN else escape(char) for char in plain(text))
