"""What trtexec prints, of every version from 8.0 on."""

import re
from dataclasses import dataclass, field

__all__ = ["Summary", "TrtexecLog", "read_log", "version_of"]

BANNER = re.compile(r"&&&& (?P<state>RUNNING|PASSED|FAILED|WAIVED) TensorRT\.trtexec(?: \[TensorRT v(?P<version>\d{4,7})\])?")
PREFIX = re.compile(r"^(?:\[[\d/]+-[\d:]+\] )?\[(?P<severity>[VIWEF])\] ?(?:\[TRT\] ?)?(?P<text>.*)$")
# Digits are bounded: a long run of them is no number, and is not to be tried from each of them on.
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
BUILT = re.compile(rf"Engine built in (?P<value>{NUMBER}) sec")
MEMORY = re.compile(r"\bnow: CPU (?P<value>\d{1,18})\b")
UNKNOWN = re.compile(r"Unknown option: (?P<option>-\S*)")
GRAPH_LOST = re.compile(r"CUDA graph capture failed|not permitted under CUDA graph capture|--useCudaGraph flag has been ignored")
UNSTABLE = re.compile(rf"coefficient of variance = (?P<value>{NUMBER})%")


@dataclass(frozen=True)
class Summary:
    """One line of trtexec's own summary, milliseconds a query; `percentiles` by percent."""

    min: float
    max: float
    mean: float
    median: float
    percentiles: dict[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrtexecLog:
    """What a run printed, as far as it was understood; what it did not print is None or empty.

    Attributes:
        version: version of TensorRT, three numbers.
        passed: whether the last line says so; None where there is no such line.
        queries_per_s: trtexec's throughput: a query is one batch.
        summaries: by their names: "Latency", "GPU Compute Time", "H2D Latency", ...
        warm_up_queries: before the measured ones.
        load_s: to load the engine.
        memory_mib: the most memory of the process that the log mentions.
        graph_lost: a CUDA graph was asked for and could not be captured.
        unstable_percent: the coefficient of variation that trtexec warns of.
        unknown_options: that this version does not know.
        warnings: in order, each once, continued lines joined.
        errors: in order, each once, continued lines joined.
    """

    version: tuple[int, int, int] | None = None
    passed: bool | None = None
    queries_per_s: float | None = None
    summaries: dict[str, Summary] = field(default_factory=dict)
    warm_up_queries: int | None = None
    queries: int | None = None
    load_s: float | None = None
    build_s: float | None = None
    memory_mib: float | None = None
    graph_lost: bool = False
    unstable_percent: float | None = None
    unknown_options: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def version_of(digits: str) -> tuple[int, int, int]:
    """Return the version that NV_TENSORRT_VERSION spells: "8205" is 8.2.5, "100300" is 10.3.0."""
    number = int(digits)
    if number >= 10**5:  # ten-thousands and hundreds from 10 on
        return number // 10000, number // 100 % 100, number % 100
    return number // 1000, number // 100 % 10, number % 100


def read_log(text: str) -> TrtexecLog:
    """Read the output of one run, standard error included; lines that mean nothing here are skipped."""
    lines = [_Line.of(line) for line in text.splitlines()]
    values: dict[str, float] = {}
    for name, pattern in (("queries_per_s", THROUGHPUT), ("load_s", LOADED), ("build_s", BUILT)):
        found = [float(match["value"]) for line in lines if (match := pattern.search(line.text))]
        if found:
            values[name] = found[-1]
    memory = [float(match["value"]) for line in lines if "(MiB)" in line.text and (match := MEMORY.search(line.text))]
    states = [match for line in text.splitlines() if (match := BANNER.search(line))]
    ended = [match["state"] for match in states if match["state"] != "RUNNING"]
    versions = [match["version"] for match in states if match["version"]]
    unstable = [float(match["value"]) for line in lines if (match := UNSTABLE.search(line.text))]
    return TrtexecLog(
        version=version_of(versions[0]) if versions else None,
        passed=ended[-1] == "PASSED" if ended else None,
        summaries=_summaries(lines),
        warm_up_queries=_count(lines, WARM_UP),
        queries=_count(lines, TRACE),
        memory_mib=max(memory) if memory else None,
        graph_lost=any(GRAPH_LOST.search(line.text) for line in lines if line.severity == "W"),
        unstable_percent=unstable[-1] if unstable else None,
        unknown_options=tuple(match["option"] for line in lines if (match := UNKNOWN.search(line.text))),
        warnings=_messages(lines, "W"),
        errors=_messages(lines, "EF"),
        **values,
    )


@dataclass(frozen=True)
class _Line:
    severity: str
    text: str

    @classmethod
    def of(cls, line: str) -> "_Line":
        match = PREFIX.match(line.strip())
        return cls(match["severity"], match["text"]) if match else cls("", line.strip())


def _summaries(lines: list[_Line]) -> dict[str, Summary]:
    found = {}
    for line in lines:
        match = SUMMARY.match(line.text)
        if match is not None:
            figures = {name: float(match[name]) for name in ("min", "max", "mean", "median")}
            percentiles = {float(one["percent"]): float(one["value"]) for one in PERCENTILE.finditer(match["rest"])}
            found[match["name"]] = Summary(**figures, percentiles=percentiles)
    return found


def _count(lines: list[_Line], pattern: re.Pattern[str]) -> int | None:
    found = [match["value"] for line in lines if (match := pattern.match(line.text))]
    return int(found[-1][:18]) if found else None


def _messages(lines: list[_Line], severities: str) -> tuple[str, ...]:
    """Return the messages of some severities; a line that begins with two spaces continues the one before it."""
    messages: list[str] = []
    for line in lines:
        if not line.severity or line.severity not in severities or not line.text.strip():
            continue
        if line.text.startswith("  ") and messages:
            messages[-1] = f"{messages[-1]} {line.text.strip()}"
        else:
            messages.append(line.text.strip().removeprefix("* "))
    return tuple(dict.fromkeys(messages))
