"""The warnings of a deployment, each once: warnings that differ only in their numbers are merged."""

import re

from emca_deploy.reporting.formats import plain
from emca_deploy.results.deploy import DeployReport

__all__ = ["warnings_of"]

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?%?")


def warnings_of(report: DeployReport) -> list[tuple[str, str]]:
    """Return (candidates, warning); candidates is "" where the warning is about all.

    Warnings that differ only in numbers become one, with all the numbers: "latency drifted by +15%/-64% ...".
    """
    about: dict[str, list[tuple[str, str]]] = {}
    for candidate in report.candidates:
        for warning in dict.fromkeys(plain(text) for text in candidate.latency.warnings):
            about.setdefault(_NUMBER.sub("#", warning), []).append((plain(candidate.name), warning))
    merged = []
    for group in about.values():
        names = list(dict.fromkeys(name for name, _ in group))
        merged.append(("" if len(names) == len(report.candidates) else ", ".join(names), _joined([text for _, text in group])))
    return merged


def _joined(warnings: list[str]) -> str:
    """Join sentences with the same words, with the different numbers of each place side by side."""
    numbers = zip(*(_NUMBER.findall(warning) for warning in warnings), strict=True)
    sides = ["/".join(dict.fromkeys(place)) for place in numbers]
    words = _NUMBER.split(warnings[0])
    return "".join(word + number for word, number in zip(words, [*sides, ""], strict=True))
