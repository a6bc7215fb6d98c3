"""The output of trtexec, from version 8.0 on."""

import re
from dataclasses import dataclass, field

__all__ = ["Summary", "TrtexecLog", "read_log", "version_of"]

BANNER = re.compile(r"&&&& (?P<state>RUNNING|PASSED|FAILED|WAIVED) TensorRT\.trtexec(?: \[TensorRT v(?P<version>\d{4,7})\])?")
PREFIX = re.compile(r"^(?:\[[\d/]+-[\d:]+\] )?\[(?P<severity>[VIWEF])\] ?(?:\[TRT\] ?)?(?P<text>.*)$")
# The number of digits is bounded, which keeps the search in a long row of digits linear.
NUMBER = r"[-+]?(?:\d{1,18}(?:\.\d{0,18})?(?:[eE][-+]?\d{1,3})?|\.\d{1,18}(?:[eE][-+]?\d{1,3})?|inf|nan)"
SUMMARY = re.compile(
    rf"^(?P<name>[A-Z][\w\- ]*?): min = (?P<min>{NUMBER}) ms, max = (?P<max>{NUMBER}) ms, mean = (?P<mean>{NUMBER}) ms, "
    rf"median = (?P<median>{NUMBER}) ms(?P<rest>.*)$"
)
PERCENTILE = re.compile(rf"percentile\((?P<percent>{NUMBER})%\) = (?P<value>{NUMBER}) ms")
THROUGHPUT = re.compile(rf"^Throughput: (?P<value>{NUMBER}) qps")
WARM_UP = re.compile(r"^Warmup completed (?P<value>\d+) queries")
TRACE = re.compile(r"^Timing trace has (?P<value>\d+) queries")
LOADED = re.compile(rf"Engine (?:loaded|deserialized) in (?P<value>{NUMBER}) sec")
MEMORY = re.compile(r"\bnow: CPU (?P<value>\d{1,18})\b")
UNKNOWN = re.compile(r"Unknown option: (?P<option>-\S*)")
GRAPH_LOST = re.compile(r"CUDA graph capture failed|not permitted under CUDA graph capture|--useCudaGraph flag has been ignored")


@dataclass(frozen=True)
class Summary:
    """One line of trtexec's own summary, in ms a query; `percentiles` by percent."""

    min: float
    max: float
    median: float
    percentiles: dict[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrtexecLog:
    """The output of a run; values that it did not print are None or empty.

    Attributes:
        version: Version of TensorRT, three numbers.
        passed: Whether the last line reports success; None where there is no such line.
        queries_per_s: Throughput that trtexec reports, in batches a second.
        summaries: Summaries by name: "Latency", "GPU Compute Time", "H2D Latency", ...
        warm_up_queries: Number of queries before the measured ones.
        queries: Number of measured queries.
        load_s: Time to load the engine, in seconds.
        memory_mib: Largest memory of the process in the log, in MiB.
        graph_lost: Whether a CUDA graph was requested and could not be captured.
        unknown_options: Options that this version does not have.
        warnings: Warnings in order, each once, with continued lines joined.
        errors: Errors in order, each once, with continued lines joined.
    """

    version: tuple[int, int, int] | None = None
    passed: bool | None = None
    queries_per_s: float | None = None
    summaries: dict[str, Summary] = field(default_factory=dict)
    warm_up_queries: int | None = None
    queries: int | None = None
    load_s: float | None = None
    memory_mib: float | None = None
    graph_lost: bool = False
    unknown_options: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def version_of(digits: str) -> tuple[int, int, int]:
    """Return the version in the digits of NV_TENSORRT_VERSION: "8205" is 8.2.5, "100300" is 10.3.0."""
    number = int(digits)
    if number >= 10**5:  # from 10 on
        return number // 10000, number // 100 % 100, number % 100
    return number // 1000, number // 100 % 10, number % 100


def read_log(text: str) -> TrtexecLog:
    """Read the output of one run, standard error included; unknown lines are skipped."""
    lines = [_split(line) for line in text.splitlines()]
    texts = [line for _, line in lines]
    memory = [float(match["value"]) for line in texts if "(MiB)" in line and (match := MEMORY.search(line))]
    states = [match for line in text.splitlines() if (match := BANNER.search(line))]
    ended = [match["state"] for match in states if match["state"] != "RUNNING"]
    versions = [match["version"] for match in states if match["version"]]
    return TrtexecLog(
        version=version_of(versions[0]) if versions else None,
        passed=ended[-1] == "PASSED" if ended else None,
        queries_per_s=_last(texts, THROUGHPUT),
        summaries=_summaries(texts),
        warm_up_queries=_count(texts, WARM_UP),
        queries=_count(texts, TRACE),
        load_s=_last(texts, LOADED),
        memory_mib=max(memory) if memory else None,
        graph_lost=any(GRAPH_LOST.search(line) for severity, line in lines if severity == "W"),
        unknown_options=tuple(match["option"] for line in texts if (match := UNKNOWN.search(line))),
        warnings=_messages(lines, "W"),
        errors=_messages(lines, "EF"),
    )


def _split(line: str) -> tuple[str, str]:
    """Return the letter of a line's severity, "" without one, and its text."""
    match = PREFIX.match(line.strip())
    return (match["severity"], match["text"]) if match else ("", line.strip())


def _summaries(lines: list[str]) -> dict[str, Summary]:
    found = {}
    for line in lines:
        match = SUMMARY.match(line)
        if match is not None:
            figures = {name: float(match[name]) for name in ("min", "max", "median")}
            percentiles = {float(one["percent"]): float(one["value"]) for one in PERCENTILE.finditer(match["rest"])}
            found[match["name"]] = Summary(**figures, percentiles=percentiles)
    return found


def _last(lines: list[str], pattern: re.Pattern[str]) -> float | None:
    found = [float(match["value"]) for line in lines if (match := pattern.search(line))]
    return found[-1] if found else None


def _count(lines: list[str], pattern: re.Pattern[str]) -> int | None:
    found = [match["value"] for line in lines if (match := pattern.match(line))]
    return int(found[-1][:18]) if found else None


def _messages(lines: list[tuple[str, str]], severities: str) -> tuple[str, ...]:
    """Return the messages of some severities; a line that begins with two spaces continues the line before."""
    messages: list[str] = []
    for severity, text in lines:
        if not severity or severity not in severities or not text.strip():
            continue
        if text.startswith("  ") and messages:
            messages[-1] = f"{messages[-1]} {text.strip()}"
        else:
            messages.append(text.strip().removeprefix("* "))
    return tuple(dict.fromkeys(messages))
