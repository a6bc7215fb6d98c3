"""Finds the fastest settings by successive halving: all of them briefly, the better half longer, until one is left.

It knows no backend: a setting is a name with values, and the caller makes candidates of them. Settings are ranked by their ratio
to the default, which is measured in turn with them, so a slow moment of the machine affects both. A last round measures the best
settings and the default again. It chooses nothing, so its ratio is not biased upwards as that of the best of many is; where its
interval contains 1, the default stays.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, log2

from emca_deploy._progress import Progress
from emca_deploy.errors import EmcaError, InputError
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.measure.protocol import BLOCK_S, FEWEST_PROCESSES
from emca_deploy.harness.measure.rounds import INTERRUPTED
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.results.latency import Comparison, ProfileReport, Scenario
from emca_deploy.results.tuning import Trial, Tunable, TuneRound, Value, Values

__all__ = ["Found", "Search", "combined", "search", "starting_settings"]

DEFAULT = "default"
_FINAL_SHARE = 0.35
_AT_ONCE = 6
_LEAST_S, _MOST_S = 0.3, 10.0
_WITH_WARM_UP = 1.3
"""Measured time with its warm-up, as a multiple of the measured time."""

_FINAL_LEAST_S = 1.0
_BLOCKS, _FINAL_BLOCKS = 8, 24
_LARGE_STEP = 1000
_TOLERANCE = 1.5
"""Longest time of a search as a multiple of the budget; a search that would take longer is refused or cut short."""


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        make: Function that returns the candidate of a name with settings (all of them, defaults included).
        batch: Images per call.
        budget_s: Approximate total time; at most half as much again, if loading takes as long as it did before.
        tell: Function that is called with a line after each round.
        worth: Function that returns what ranks a trial, 1 for the default; only settings above 1 are combined and confirmed.
        measure: Function that measures candidates, with the arguments of `latency.measure`.
        processes: Processes of each of the two candidates in the last round.
        budget_option: Option that sets the budget, for errors.
    """

    make: Callable[[str, Mapping[str, Value]], RunnerSpec]
    scenario: Scenario = "single-stream"
    batch: int = 1
    budget_s: float = 120.0
    seed: int = 0
    tell: Callable[[str], None] = lambda line: None
    worth: Callable[[Trial], float] = lambda trial: trial.ratio
    measure: Callable[..., ProfileReport] = measure
    processes: int = FEWEST_PROCESSES
    budget_option: str = "--budget"

    @property
    def final_loads(self) -> int:
        """Number of loads of each candidate in the last round, of which half may have to be repeated."""
        return 2 * self.processes


@dataclass
class Found:
    """The result of a search, filled in as it proceeds.

    Attributes:
        best: Settings that differ from the default in the fastest settings; empty where nothing was faster.
        rounds: Rounds in order; the last one confirms where `confirmed` is set.
        confirmed: Comparison of the last round; None where it was not reached or there was nothing to confirm.
        last: Report of the last round, the default first.
        complete: False after an interrupt.
    """

    best: Values = field(default_factory=dict)
    rounds: list[TuneRound] = field(default_factory=list)
    confirmed: Comparison | None = None
    last: ProfileReport | None = None
    complete: bool = True
    seconds: float = 0.0
    environment: dict[str, object] = field(default_factory=dict)

    @property
    def is_faster(self) -> bool:
        """Whether the best settings are shown to be faster than the default."""
        return self.confirmed is not None and self.confirmed.verdict == "faster"


def starting_settings(space: Sequence[Tunable]) -> list[Values]:
    """Return every single change of the default, which is the first pool.

    All combinations would be too many to load; changes that help are combined later. A change that matters only with several
    threads comes with several threads where the default has one.
    """
    threads = next((tunable for tunable in space if tunable.name == "threads"), None)
    most = max((int(value) for value in (threads.default, *threads.others)), default=1) if threads else 1
    pool: list[Values] = []
    for tunable in space:
        if tunable.threaded and most == 1:
            continue
        several: Values = {"threads": most} if tunable.threaded and threads is not None and threads.default == 1 else {}
        pool += [{**several, tunable.name: value} for value in tunable.others]
    return pool


def combined(
    ranked: Sequence[Trial], known: Sequence[Values], worth: Callable[[Trial], float] = lambda trial: trial.ratio
) -> list[Values]:
    """Return the untried unions of changes that helped, best first: pairs with the best one, and all of them together.

    Where two changes set the same setting, the faster one's value is used.
    """
    helped = [trial.changed for trial in ranked if worth(trial) > 1]
    unions: list[Values] = []
    together: Values = {}
    for changed in helped:
        pair = {**changed, **helped[0]}
        together = {**changed, **together}
        unions += [union for union in (pair, dict(together)) if union not in unions and union not in known]
    return unions


def search(space: Sequence[Tunable], how: Search, progress: Progress | None = None) -> Found:
    """Find the fastest settings; the order of the space breaks ties. After an interrupt, return the result so far.

    `progress` is called with (thousandths of the budget used, 1000).

    Raises:
        EmcaError: the default does not run.
        InputError: the budget is too small for a single setting.
        KeyboardInterrupt: the user interrupted before the default was measured.
    """
    run = _Run(space, how, progress or (lambda done, total: None))
    run.measure_default()
    run.check_budget()
    try:
        run.halve()
        run.confirm()
    except KeyboardInterrupt:
        run.found.complete = False
    run.found.seconds = time.monotonic() - run.start_s
    return run.found


class _Run:
    """A search under way."""

    def __init__(self, space: Sequence[Tunable], how: Search, report: Progress) -> None:
        self.start_s = time.monotonic()
        self.found = Found()
        self._default: Values = {tunable.name: tunable.default for tunable in space}
        self._pool = starting_settings(space)
        self._how = how
        self._report = report
        self._load_s = 0.0  # of one candidate: process, model, first call
        self._least_s = _LEAST_S

    def measure_default(self) -> None:
        """Measure the default alone: an error of it ends the search, and its times plan the rounds."""
        start_s = time.monotonic()
        spec = self._how.make(DEFAULT, self._default)
        result = self._how.measure([spec], self._protocol(_LEAST_S, _BLOCKS))
        call_s = result.results[0].latency_ms.p50 / 1000
        self._least_s = max(_LEAST_S, _BLOCKS * call_s)  # a block is one call at least
        self._load_s = max(0.0, time.monotonic() - start_s - self._least_s)
        self.found.environment = result.environment
        self._at(start_s)

    def check_budget(self) -> None:
        """Refuse a budget that is too small to measure and confirm one setting, and name a sufficient one."""
        gone_s = time.monotonic() - self.start_s
        least_s = (gone_s + 2 * self._heat_s() + self._confirming_s()) / _TOLERANCE
        if least_s > self._how.budget_s:
            option = self._how.budget_option
            problem = f"{option} {self._how.budget_s:g}: too small, since loading and measuring the default took {gone_s:.1f} s"
            raise InputError(problem, f"give at least {option} {ceil(1.2 * least_s)}")

    def _heat_s(self) -> float:
        """Return the shortest time of one setting."""
        return self._load_s + self._least_s * _WITH_WARM_UP

    def _confirming_s(self) -> float:
        """Return the shortest time of the last round."""
        return 2 * (_FINAL_LEAST_S * _WITH_WARM_UP + self._how.final_loads * self._load_s)

    def _end_s(self) -> float:
        """Return the latest time by which all but the last round has to be done."""
        return self.start_s + _TOLERANCE * self._how.budget_s - self._confirming_s()

    def halve(self) -> None:
        """Measure the pool, keep the better half, add combinations of its changes, and repeat until one is left."""
        ranked: list[Trial] = []
        first = True
        while self._pool and (first or len(self._pool) > 1):
            duration_s = self._duration_s() or (self._least_s if first else None)
            if duration_s is None:
                break
            if first:  # only as many as there is time for
                self._pool = self._pool[: max(1, int((self._end_s() - time.monotonic()) / self._heat_s()) - 1)]
            ranked, refused = self._round(duration_s)
            self.found.rounds.append(TuneRound(duration_s, tuple(ranked), tuple(refused)))
            self.found.best = dict(ranked[0].changed) if ranked and self._how.worth(ranked[0]) > 1 else {}
            self._tell()
            kept = [trial.changed for trial in ranked[: ceil(len(ranked) / 2)]]
            extra = combined(ranked[: len(kept)], [trial.changed for trial in ranked], self._how.worth) if first else []
            self._pool = self._affordable([*kept[:1], *extra[: max(2, len(kept))], *kept[1:]])
            first = False

    def _affordable(self, pool: list[Values]) -> list[Values]:
        """Return the first part of the pool that another round has time for at twice the shortest duration."""
        a_candidate_s = self._load_s + 2 * self._least_s * _WITH_WARM_UP
        left_s = self._search_end_s() - time.monotonic()
        return pool[: max(1, int(left_s / a_candidate_s) - 1)]  # one of them is the default

    def _search_end_s(self) -> float:
        return self.start_s + self._how.budget_s * (1 - _FINAL_SHARE)

    def confirm(self) -> None:
        """Measure the best and the default once more, longer."""
        if not self.found.best or time.monotonic() > self._end_s() + self._confirming_s() / 3:
            return
        left_s = self._how.budget_s - (time.monotonic() - self.start_s)
        duration_s = min(max((left_s / 2 - self._how.final_loads * self._load_s) / _WITH_WARM_UP, _FINAL_LEAST_S), _MOST_S)
        report = self._measure([self.found.best], duration_s, _FINAL_BLOCKS, keep_going=False, processes=self._how.processes)
        self.found.rounds.append(TuneRound(duration_s, tuple(_trials(report, [self.found.best]))))
        self.found.last, self.found.confirmed = report, report.comparisons[0]
        self._tell()
        self._report(_LARGE_STEP, _LARGE_STEP)

    def _duration_s(self) -> float | None:
        """Return how long to measure each setting of the next round, or None where only the last round fits."""
        left_s = self._search_end_s() - time.monotonic()
        rounds_left = ceil(log2(max(2, len(self._pool)))) + (0 if self.found.rounds else 1)
        measured = len(self._pool) + ceil(len(self._pool) / (_AT_ONCE - 1))
        least_s = measured * (self._load_s + self._least_s * _WITH_WARM_UP)
        share_s = min(max(left_s / rounds_left, least_s), left_s)
        duration_s = (share_s / measured - self._load_s) / _WITH_WARM_UP
        return min(duration_s, max(_MOST_S, self._least_s)) if duration_s >= 0.99 * self._least_s else None

    def _round(self, duration_s: float) -> tuple[list[Trial], list[tuple[Values, str]]]:
        trials: list[Trial] = []
        refused: list[tuple[Values, str]] = []
        others = _AT_ONCE - 1
        for start in range(0, len(self._pool), others):
            if trials and time.monotonic() + 2 * self._heat_s() > self._end_s():
                break
            heat = self._pool[start : start + others]
            report = self._measure(heat, duration_s, _BLOCKS, keep_going=True)
            trials += _trials(report, heat)
            refused += [(heat[int(failure.name[1:])], failure.error) for failure in report.failures if failure.name != DEFAULT]
        trials.sort(key=lambda trial: -self._how.worth(trial))
        return trials, refused

    def _measure(
        self, heat: Sequence[Values], duration_s: float, blocks: int, *, keep_going: bool, processes: int = 1
    ) -> ProfileReport:
        """Measure the default and some others in turn; raise an error of the default, and an interrupt."""
        specs = [self._how.make(DEFAULT, self._default)]
        specs += [self._how.make(f"#{index}", {**self._default, **changed}) for index, changed in enumerate(heat)]
        start_s = time.monotonic()
        planned_s = len(specs) * (duration_s * 1.2 + self._load_s)

        def report(done: int, total: int) -> None:
            self._at(start_s, planned_s * done / max(total, 1))

        protocol = replace(self._protocol(duration_s, blocks), processes=processes)
        found = self._how.measure(specs, protocol, report, keep_going=keep_going)
        if found.protocol is not None and found.protocol.stop == INTERRUPTED:
            raise KeyboardInterrupt
        for failure in found.failures:
            if failure.name == DEFAULT:
                raise EmcaError(failure.error, failure.remedy)
        self._load_s = max(0.0, (time.monotonic() - start_s) / len(specs) - duration_s * (1 + _WITH_WARM_UP) / 2)
        return found

    def _protocol(self, duration_s: float, blocks: int) -> Protocol:
        block_s = min(BLOCK_S[self._how.scenario], duration_s / blocks)
        warmup_s = min(0.3 * duration_s, 1.0)
        return Protocol(self._how.scenario, self._how.batch, warmup_s, block_s, duration_s, seed=self._how.seed)

    def _at(self, start_s: float, more_s: float = 0.0) -> None:
        """Report the progress as a share of the budget."""
        gone_s = max(time.monotonic() - self.start_s, start_s - self.start_s + more_s)
        self._report(min(int(_LARGE_STEP * gone_s / self._how.budget_s), _LARGE_STEP - 1), _LARGE_STEP)

    def _tell(self) -> None:
        done = self.found.rounds[-1]
        if done.trials:
            top = done.trials[0]
            changed = ", ".join(f"{name}={value}" for name, value in top.changed.items())
            count = f"{len(done.trials)} settings" if len(done.trials) > 1 else "1 setting"
            self._how.tell(
                f"round {len(self.found.rounds)}: {count} for {done.duration_s:.1f} s each; best {changed}: {top.ratio:.3f} x"
            )


def _trials(report: ProfileReport, heat: Sequence[Values]) -> list[Trial]:
    """Return the trials of a heat that were measured, the fastest first."""
    trials = [
        Trial(dict(heat[int(one.a[1:])]), result.latency_ms.p50, result.throughput_images_per_s, one.ratio_p50, one.ratio_ci95)
        for one, result in zip(report.comparisons, report.results[1:], strict=True)
    ]
    return sorted(trials, key=lambda trial: -trial.ratio)
