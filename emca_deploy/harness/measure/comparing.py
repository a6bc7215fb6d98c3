"""Comparing results of different runs: only where machine and protocol are the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.errors import InputError
from emca_deploy.harness.measure.raw_samples import RawCandidate, read_raw
from emca_deploy.results.codec import read_json, version
from emca_deploy.results.latency import Comparison, LatencyResult, ProfileReport, ProtocolRecord, verdict_of
from emca_deploy.stats.estimates import ratio_of_medians

__all__ = ["CompareReport", "Measured", "check_comparable", "compare_runs", "differences", "read_profile_report"]

SCHEMA_VERSION = 1

_SAME_PROTOCOL = ("scenario", "batch", "block_s", "timing_boundary")
"""What must agree. Durations may differ: the intervals tell."""


@dataclass(frozen=True)
class CompareReport:
    """What `compare --json` prints.

    Attributes:
        differences: what ought to keep the two runs from being compared; empty unless --force was given.
    """

    differences: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    schema_version: int = version(SCHEMA_VERSION)


@dataclass(frozen=True)
class Measured:
    """A profile and where it was read.

    Attributes:
        raw: the raw samples of `report.results`, in their order; empty where the report names none or keeps its own samples.
    """

    place: Path
    report: ProfileReport
    raw: tuple[RawCandidate, ...] = ()

    @classmethod
    def read(cls, place: Path) -> "Measured":
        """Return the profile in a JSON file, with the raw samples that it names.

        Raises:
            InputError: one of them cannot be read, or they do not belong together.
        """
        report = read_profile_report(place)
        if report.raw_samples is None or all(result.samples_ms for result in report.results):
            return cls(place, report)
        candidates = read_raw(place.parent / report.raw_samples).candidates
        counts = [len(candidate.calls_ns) for candidate in candidates]
        if counts != [result.samples for result in report.results]:
            raise InputError(f"{place}: its raw samples are of another run", "keep the two files of a run together")
        return cls(place, report, candidates)

    def blocks(self, index: int) -> list[Float64Array]:
        """Return what is compared of a result, block by block: milliseconds of each call, offline of each block per image.

        Raises:
            InputError: it has no samples, or they do not add up.
        """
        result = self.report.results[index]
        calls = np.asarray(result.block_calls, np.int64)
        if result.scenario == "offline" and len(calls):
            return [np.array([wall / (result.batch * n)]) for wall, n in zip(result.block_wall_ms, calls, strict=True)]
        if self.raw:
            return self.raw[index].blocks_ms()
        samples = np.asarray(result.samples_ms, np.float64)
        if not len(samples) or calls.sum() != (len(samples) if len(calls) else 0):
            raise InputError(
                f"{self.place}: has no blocks of samples to compare", "measure again, with samples in the JSON document or --raw"
            )
        return np.split(samples, np.cumsum(calls)[:-1])


def read_profile_report(place: Path) -> ProfileReport:
    """Return the report in a file that `profile -o` or `--json` wrote, of this schema version or an older one.

    Raises:
        InputError: it cannot be read, is none, or is of a newer version.
    """
    return read_json(ProfileReport, place, "a profile", "name a file that `profile -o` wrote")


def differences(a: ProfileReport, b: ProfileReport) -> list[str]:
    """Return what keeps two reports from being compared, each in a few words; what is unknown counts as different."""
    return [*_of_machines(a, b), *_of_protocols(a.protocol, b.protocol)]


def check_comparable(a: ProfileReport, b: ProfileReport) -> None:
    """Refuse to compare reports of different machines or protocols.

    Raises:
        InputError: they are, or one of them does not say.
    """
    found = differences(a, b)
    if found:
        remedy = "measure both on the same machine with the same options, or say --force"
        raise InputError(f"the results cannot be compared: {'; '.join(found)}", remedy)


def _of_machines(a: ProfileReport, b: ProfileReport) -> list[str]:
    one, other = (report.environment.get("fingerprint") for report in (a, b))
    if one is None or other is None:
        return ["the machine of one of them is unknown"]
    if one == other:
        return []
    parts = [report.environment.get("fingerprint_parts") or {} for report in (a, b)]
    names = [name for name in {**parts[0], **parts[1]} if parts[0].get(name) != parts[1].get(name)]
    told = ", ".join(f"{name} {parts[0].get(name)} and {parts[1].get(name)}" for name in names)
    return [f"different machines ({told or f'{one} and {other}'})"]


def _of_protocols(a: ProtocolRecord | None, b: ProtocolRecord | None) -> list[str]:
    if a is None or b is None:
        return ["the protocol of one of them is unknown (schema version 1)"]
    names = [name for name in _SAME_PROTOCOL if getattr(a, name) != getattr(b, name)]
    return [f"different {name} ({getattr(a, name)} and {getattr(b, name)})" for name in names]


def compare_runs(a: Measured, b: Measured, seed: int = 0) -> tuple[Comparison, ...]:
    """Return how many times faster each candidate was in run `a` than the same one in run `b`.

    The same is that of the same artifact, backend and precision; where each run has a single candidate, these two.
    `check_comparable` has let both pass. Their rounds are resampled apart: they were not measured together.

    Raises:
        InputError: the runs have no candidate in common, or no samples.
    """
    comparisons = []
    for first, second in _in_common(a.report.results, b.report.results):
        ours, theirs = a.report.results[first], b.report.results[second]
        processes = (ours.block_builds or None, theirs.block_builds or None)
        ratio, interval = ratio_of_medians(b.blocks(second), a.blocks(first), seed, paired=False, processes=processes[::-1])
        comparisons.append(Comparison(_name(ours, a), _name(theirs, b), ratio, interval, verdict_of(interval)))
    if not comparisons:
        raise InputError(
            f"{a.place} and {b.place} have no candidate in common", "measure the same artifacts on the same backends"
        )
    return tuple(comparisons)


def _in_common(a: Sequence[LatencyResult], b: Sequence[LatencyResult]) -> list[tuple[int, int]]:
    if len(a) == len(b) == 1:
        return [(0, 0)]
    places = {_key(result): index for index, result in reversed(list(enumerate(b)))}
    return [(index, places[_key(result)]) for index, result in enumerate(a) if _key(result) in places]


def _key(result: LatencyResult) -> tuple[str, str, str]:
    return result.artifact, result.backend, result.precision


def _name(result: LatencyResult, run: Measured) -> str:
    return f"{result.artifact} in {run.place}"
