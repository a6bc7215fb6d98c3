"""Compares results of different runs, if machine and protocol are the same."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.errors import InputError
from emca_deploy.harness.measure.raw_samples import RawCandidate, read_raw
from emca_deploy.results.codec import read_json
from emca_deploy.results.latency import CompareReport, Comparison, LatencyResult, ProfileReport, ProtocolRecord, verdict_of
from emca_deploy.stats.estimates import ratio_of_medians

__all__ = ["Measured", "compare_runs", "differences"]

_SAME_PROTOCOL = ("scenario", "batch", "block_s", "timing_boundary")
"""Fields that must agree. Durations may differ: they show in the intervals."""


@dataclass(frozen=True)
class Measured:
    """A profile and the file it was read from.

    Attributes:
        raw: Raw samples of `report.results`, in order; empty where the report names no file or has its own samples.
    """

    place: Path
    report: ProfileReport
    raw: tuple[RawCandidate, ...] = ()

    @classmethod
    def read(cls, place: Path) -> "Measured":
        """Return the profile in a file of `profile -o` or `--json`, of this or an older schema version, with its raw samples.

        Raises:
            InputError: a file cannot be read, is not a profile, is of a newer version, or is of another run.
        """
        return cls.of(place, read_json(ProfileReport, place, "a profile", "name a file that `profile -o` wrote"))

    @classmethod
    def of(cls, place: Path, report: ProfileReport) -> "Measured":
        """Return a profile that was read from a file, with its raw samples.

        Raises:
            InputError: its file of raw samples cannot be read, or is of another run.
        """
        if report.raw_samples is None or all(result.samples_ms for result in report.results):
            return cls(place, report)
        candidates = read_raw(place.parent / report.raw_samples).candidates
        counts = [len(candidate.calls_ns) for candidate in candidates]
        if counts != [result.samples for result in report.results]:
            raise InputError(f"{place}: its raw samples are of another run", "keep the two files of a run together")
        return cls(place, report, candidates)

    def alone(self, index: int) -> "Measured":
        """Return the profile with one of its results only."""
        report = replace(self.report, results=self.report.results[index : index + 1], comparisons=())
        return Measured(self.place, report, self.raw[index : index + 1])

    def blocks(self, index: int) -> list[Float64Array]:
        """Return the compared milliseconds of a result, block by block: each call's latency, or offline the time per image.

        Raises:
            InputError: it has no samples, or they do not match its blocks.
        """
        result = self.report.results[index]
        calls = np.asarray(result.block_calls, np.int64)
        if result.scenario == "offline" and len(calls):
            return [np.array([wall / (result.batch * n)]) for wall, n in zip(result.block_wall_ms, calls, strict=True)]
        return self.calls(index)

    def calls(self, index: int) -> list[Float64Array]:
        """Return the milliseconds of each call of a result, block by block.

        Raises:
            InputError: it has no samples, or they do not match its blocks.
        """
        if self.raw:
            return self.raw[index].blocks_ms()
        result = self.report.results[index]
        calls = np.asarray(result.block_calls, np.int64)
        samples = np.asarray(result.samples_ms, np.float64)
        if not len(samples) or calls.sum() != (len(samples) if len(calls) else 0):
            remedy = "measure again, with samples in the JSON document or --raw"
            raise InputError(f"{self.place}: has no blocks of samples to compare", remedy)
        return np.split(samples, np.cumsum(calls)[:-1])


def differences(a: ProfileReport, b: ProfileReport) -> list[str]:
    """Return the reasons, in a few words each, why two reports must not be compared; an unknown value counts as different."""
    return [*_of_machines(a, b), *_of_protocols(a.protocol, b.protocol)]


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


def compare_runs(a: Measured, b: Measured, seed: int = 0, *, force: bool = False) -> CompareReport:
    """Return how many times faster each candidate was in run `a` than in run `b`.

    Candidates match by artifact, backend and precision; where each run has a single candidate, these two match. Their rounds are
    resampled separately, since they were not measured together.

    Raises:
        InputError: the runs have no candidate in common or no samples, or their machines or protocols differ without `force`.
    """
    found = differences(a.report, b.report)
    if found and not force:
        remedy = "measure both on the same machine with the same options, or add --force"
        raise InputError(f"the results cannot be compared: {'; '.join(found)}", remedy)
    comparisons = []
    for first, second in _in_common(a.report.results, b.report.results):
        one, other = a.report.results[first], b.report.results[second]
        processes = (other.block_builds or None, one.block_builds or None)
        ratio, interval = ratio_of_medians(b.blocks(second), a.blocks(first), seed, paired=False, processes=processes)
        names = f"{one.artifact} in {a.place}", f"{other.artifact} in {b.place}"
        comparisons.append(Comparison(*names, ratio, interval, verdict_of(interval)))
    if not comparisons:
        problem = f"{a.place} and {b.place} have no candidate in common"
        raise InputError(problem, "measure the same artifacts on the same backends")
    return CompareReport(tuple(found), tuple(comparisons))


def _in_common(a: Sequence[LatencyResult], b: Sequence[LatencyResult]) -> list[tuple[int, int]]:
    if len(a) == len(b) == 1:
        return [(0, 0)]
    places = {_key(result): index for index, result in reversed(list(enumerate(b)))}
    return [(index, places[_key(result)]) for index, result in enumerate(a) if _key(result) in places]


def _key(result: LatencyResult) -> tuple[str, str, str]:
    return result.artifact, result.backend, result.precision
