"""Measures a candidate and its baseline in turn until their slowdown is decided, or the time is over.

A stage is a short `profile` of both in new processes. Each pair of processes, one of each artifact, gives the median ratio of
blocks that ran next to each other. The pairs are independent, and the interval of their mean stays valid at every look.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from pathlib import Path

import numpy as np

from emca_deploy._progress import Progress
from emca_deploy.errors import EmcaError, InputError
from emca_deploy.harness.measure.comparing import Measured
from emca_deploy.requests import ProfileRequest
from emca_deploy.requirements.documents import MeasuredCandidate
from emca_deploy.requirements.estimates import Estimate
from emca_deploy.requirements.slowdown import percent
from emca_deploy.results.latency import ProfileReport
from emca_deploy.results.requirements import CONFIDENCE, Requirement, verdict_of_interval
from emca_deploy.stats.sequential import interval_at_look, values_needed
from emca_deploy.targets.named_artifacts import split_artifact
from emca_deploy.targets.named_machines import ready

__all__ = ["LOOK_PAIRS", "Confirmed", "confirm", "measured_until_decided", "pairs_of", "stage_request"]

STAGE_S = 4.0
"""Measured seconds of each artifact in a stage, in all processes together."""

_WARM_UP_S = 0.5
LOOK_PAIRS = 8
"""Pairs of processes between two looks at the interval: fewer tell too little about how they differ."""

_PROCESSES = {"cpu": LOOK_PAIRS}
"""Processes of each artifact in a stage by the kind of target; on others one, since loading takes long there."""

_MILLI = 1000


@dataclass(frozen=True)
class Confirmed:
    """What the stages showed.

    Attributes:
        ratios: Logarithm of the candidate's latency over the baseline's, by pair of processes.
        seconds: Duration of all stages.
        looks: How often the interval was looked at.
    """

    ratios: tuple[float, ...]
    seconds: float
    looks: int

    def interval(self) -> tuple[float, float, float]:
        """Return the slowdown in percent, and the ends of its interval; infinite where there are too few pairs."""
        mean, low, high = interval_at_look(self.ratios, self.looks, CONFIDENCE)
        return percent(exp(mean)), percent(exp(low)), percent(exp(high)) if high < inf else inf


def confirm(
    candidate: MeasuredCandidate,
    baseline: str,
    requirements: Sequence[Requirement],
    most_s: float,
    progress: Progress | None = None,
) -> Estimate:
    """Return the slowdown of a candidate against a baseline, "path" or "backend=path", measured until it is decided.

    An .onnx file without a backend runs on the candidate's.

    Raises:
        InputError: an artifact cannot be run as its result says, both are one file, or the result is of another machine.
        EmcaError: an artifact failed.
        KeyboardInterrupt: the user interrupted.
    """
    ours = artifact_of(candidate)
    if _same_file(ours, baseline):
        raise InputError(f"{baseline}: is both the candidate and the baseline", "name the file of the baseline with --baseline")
    if candidate.latency is not None and Path(baseline).suffix == ".onnx" and Path(baseline).is_file():
        baseline = f"{candidate.latency.backend}={baseline}"

    def stage(number: int) -> ProfileReport:
        target, request = ready(stage_request((baseline, ours), candidate, number))
        report = target.profile(request, None).report
        _check_machine(candidate, report)
        return report

    found = measured_until_decided(stage, requirements, most_s, progress)
    value, low, high = found.interval()

    def more(limit: float) -> float | None:
        distance = abs(log(1 + limit / 100) - float(np.mean(found.ratios))) if limit > -100 else 0.0
        pairs = values_needed(distance, float(np.std(found.ratios)), LOOK_PAIRS, CONFIDENCE)
        return None if pairs is None else found.seconds * pairs / len(found.ratios)

    method = f"look {found.looks} at {len(found.ratios)} interleaved pairs of processes, {found.seconds:.0f} s"
    ends = (low if low > percent(0) else None, high if high < inf else None)
    return Estimate(value, *ends, method, seconds=more, hint="raise --max-duration", baseline=baseline)


def _same_file(ours: str, baseline: str) -> bool:
    paths = [Path(split_artifact(text)[1]) for text in (ours, baseline)]
    return ours == baseline or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))


def _check_machine(candidate: MeasuredCandidate, report: ProfileReport) -> None:
    if candidate.run is None:
        return
    before, now = (each.environment.get("fingerprint") for each in (candidate.run.report, report))
    if before is not None and before != now:
        raise InputError(
            f"{candidate.run.place}: is of another machine than this one", "profile the artifact here, and gate that result"
        )


def artifact_of(candidate: MeasuredCandidate) -> str:
    """Return a candidate as `profile` takes it: "path" or "backend=path".

    Raises:
        InputError: it was built several times, and its files are not named.
    """
    result = candidate.latency
    name = "+".join(result.builds) if result is not None and result.builds else candidate.artifact
    if result is None or not Path(name).exists():
        return name
    return f"{result.backend}={name}"


def stage_request(artifacts: tuple[str, str], candidate: MeasuredCandidate, number: int) -> ProfileRequest:
    """Return the request of a stage: the baseline first, on the candidate's target with its scenario, batch and threads."""
    result = candidate.latency
    target = "cpu" if result is None else result.target
    threads = None if result is None else result.runtime.get("threads")
    return ProfileRequest(
        artifacts=artifacts,
        target=target,
        scenario="single-stream" if result is None else result.scenario,
        batch=None if result is None else result.batch,
        threads=threads if isinstance(threads, int) else None,
        duration_s=STAGE_S,
        max_duration_s=STAGE_S,
        processes=_PROCESSES.get(target.partition(":")[0], 1),
        warmup_s=_WARM_UP_S,
        seed=number,
        telemetry=False,
        load_together=True,
    )


def measured_until_decided(
    stage: Callable[[int], ProfileReport], requirements: Sequence[Requirement], most_s: float, progress: Progress | None = None
) -> Confirmed:
    """Run stages until every requirement on the slowdown is decided, or another stage would exceed `most_s`.

    `stage` is called with its number, from 0, and returns a profile of the baseline and the candidate, in this order.

    Raises:
        EmcaError: an artifact failed.
        KeyboardInterrupt: the user interrupted.
    """
    started = time.monotonic()
    ratios: list[float] = []
    longest_s, number, looks, looked_at = 0.0, 0, 0, 0
    while True:
        began = time.monotonic()
        report = stage(number)
        _check(report)
        ratios += pairs_of(report)
        number += 1
        now = time.monotonic()
        longest_s = max(longest_s, now - began)
        seconds = now - started
        if progress is not None:
            progress(min(round(_MILLI * seconds / most_s), _MILLI), _MILLI)
        is_over = seconds + longest_s > most_s
        if is_over or len(ratios) >= looked_at + LOOK_PAIRS:
            looks, looked_at = looks + 1, len(ratios)
            found = Confirmed(tuple(ratios), seconds, looks)
            if is_over or _decided(found, requirements):
                return found


def _check(report: ProfileReport) -> None:
    for failure in report.failures:
        error = EmcaError(failure.error, failure.remedy)
        error.exit_code = failure.exit_code
        raise error
    if not report.complete:
        raise KeyboardInterrupt
    if len(report.results) != 2:
        raise InputError("the slowdown compares two artifacts, and there are others", "name one file for each")


def _decided(found: Confirmed, requirements: Sequence[Requirement]) -> bool:
    _, low, high = found.interval()
    return all(verdict_of_interval(each, low, high) != "undecided" for each in requirements)


def pairs_of(report: ProfileReport) -> list[float]:
    """Return for each pair of processes the median over rounds of the logarithm of the second block over the first."""
    measured = Measured(Path(), report)
    sides = [measured.blocks(index) for index in (0, 1)]
    rounds = min(map(len, sides))
    logs = [np.log([np.median(block) for block in side[:rounds]]) for side in sides]
    processes = np.asarray(report.results[1].block_builds[:rounds] or [0] * rounds)
    return [float(np.median((logs[1] - logs[0])[processes == each])) for each in np.unique(processes)]
