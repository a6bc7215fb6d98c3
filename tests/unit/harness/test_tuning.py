"""The search for settings, with fakes in this process."""

import json
import math
from collections.abc import Mapping

import pytest
from refusals import refusing

from emca_deploy.errors import DataError, EmcaError, InputError
from emca_deploy.harness.measure.tuning import Search, combined, search, starting_settings
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.tuning import Trial, Tunable, TuneReport, TuneRound
from emca_deploy.targets.settings import with_values

THREADS = Tunable("threads", 2, (1,))
PACE = Tunable("pace", "steady", ("slow", "quick", "broken"))


def fake(artifact: str = "fake:latency_ms=4"):
    def make(name: str, values: Mapping[str, object]) -> RunnerSpec:
        return with_values(RunnerSpec(name, kwargs={"backend": "fake", "artifact": artifact}, backend="fake"), values)

    return make


pytestmark = pytest.mark.usefixtures("in_process")


def trial(ratio: float, **changed: object) -> Trial:
    return Trial(changed, 1.0, 1000.0, ratio, (ratio, ratio))


def test_first_pool_is_every_single_change():
    space = (THREADS, Tunable("spin", True, (False,), threaded=True), Tunable("mode", "a", ("b", "c")))
    assert starting_settings(space) == [{"threads": 1}, {"spin": False}, {"mode": "b"}, {"mode": "c"}]


def test_what_needs_threads_comes_with_them_or_not_at_all():
    spin = Tunable("spin", True, (False,), threaded=True)
    assert {"threads": 4, "spin": False} in starting_settings((Tunable("threads", 1, (2, 4)), spin))
    assert starting_settings((Tunable("threads", 1, ()), spin)) == []


def test_changes_that_helped_are_combined_and_the_faster_value_wins():
    ranked = [trial(1.5, pace="quick"), trial(1.3, threads=1), trial(1.2, pace="slow", mode="b"), trial(0.9, mode="c")]
    unions = combined(ranked, [one.changed for one in ranked])
    assert {"pace": "quick", "threads": 1} in unions
    assert {"pace": "quick", "threads": 1, "mode": "b"} in unions
    assert all(union.get("mode") != "c" for union in unions)
    assert all(union["pace"] == "quick" for union in unions)


def test_the_fastest_is_found_and_confirmed_and_what_is_refused_is_told():
    lines: list[str] = []
    told: list[tuple[int, int]] = []
    found = search((THREADS, PACE), Search(fake(), budget_s=4, tell=lines.append), lambda *place: told.append(place))
    assert found.complete
    assert found.best["pace"] == "quick"
    assert found.is_faster
    assert found.confirmed is not None
    assert 1.5 < found.confirmed.ratio_p50 < 2.5
    first, *_, last = found.rounds
    assert {tuple(one.changed.items()) for one in first.trials} >= {(("pace", "slow"),), (("threads", 1),)}
    assert first.trials[-1].changed == {"pace": "slow"}
    assert [changed for changed, _ in first.refused] == [{"pace": "broken"}]
    assert [one.changed for one in last.trials] == [found.best]
    assert last.duration_s > first.duration_s
    assert lines[0].startswith("round 1")
    assert told[-1] == (1000, 1000)


@pytest.mark.parametrize("slower", [Tunable("pace", "steady", ("slow",)), Tunable("precision", "f32", ("bf16",))])
def test_slower_settings_leave_the_default(slower):
    found = search((Tunable("threads", 1, ()), slower), Search(fake(), budget_s=5))
    assert found.best == {}
    assert found.confirmed is None
    assert len(found.rounds) == 1


def test_a_faster_setting_that_is_not_worth_its_cost_leaves_the_default():
    space = (Tunable("threads", 1, ()), Tunable("pace", "steady", ("quick",)))
    found = search(space, Search(fake(), budget_s=5, worth=lambda one: one.ratio - 1.5))
    assert found.rounds[0].trials[0].ratio > 1.5
    assert found.best == {}
    assert found.confirmed is None


def test_the_last_round_has_as_many_fresh_processes_as_wanted():
    space = (Tunable("threads", 1, ()), Tunable("pace", "steady", ("quick",)))
    found = search(space, Search(fake(), budget_s=9, processes=4))
    assert found.last is not None
    assert found.last.protocol is not None
    assert found.last.protocol.processes == 4
    assert found.is_faster


def test_an_artifact_that_does_not_run_is_refused_at_once():
    with pytest.raises(EmcaError, match="as asked"):
        search((THREADS, PACE), Search(fake("fake:fail_at=1"), budget_s=60))


def test_a_budget_is_held_or_refused_with_one_that_is_enough():
    slow = fake("fake:latency_ms=4,load_ms=400")
    with pytest.raises(InputError) as caught:
        search((THREADS, PACE), Search(slow, budget_s=1))
    least = int(caught.value.remedy.split()[-1])
    assert least == 7  # the simulated clock is exact
    found = search((Tunable("threads", 1, ()), Tunable("pace", "steady", ("quick",))), Search(slow, budget_s=2 * least))
    assert found.rounds
    assert found.seconds < 2 * 2 * least


def test_an_interrupt_keeps_the_best_so_far():
    asked: list[str] = []
    make = fake()

    def interrupted(name: str, values: Mapping[str, object]) -> RunnerSpec:
        asked.append(name)
        if len(asked) > 6:  # default alone, then the first round: default and four others
            raise KeyboardInterrupt
        return make(name, values)

    found = search((THREADS, PACE), Search(interrupted, budget_s=6))
    assert not found.complete
    assert found.best == {"pace": "quick"}
    assert found.confirmed is None


def test_offline_compares_batches_by_the_time_per_image():
    def make(name: str, values: Mapping[str, object]) -> RunnerSpec:
        batch = int(str(values["batch"]))
        kwargs = {"backend": "fake", "artifact": "fake:latency_ms=4"}
        return RunnerSpec(name, kwargs=kwargs, backend="fake", batch=batch)

    found = search((Tunable("batch", 2, (8,)),), Search(make, "offline", 2, budget_s=3))
    assert found.best == {"batch": 8}  # a fake's call takes the same time for every batch size
    assert found.confirmed is not None
    assert 3 < found.confirmed.ratio_p50 < 5
    assert found.last is not None
    assert [result.batch for result in found.last.results] == [2, 8]


def test_report_turns_into_json_and_back():
    rounds = (TuneRound(0.5, (trial(1.2, threads=1),), (({"pace": "broken"}, "why"),)),)
    report = TuneReport(
        "m.onnx", "fake", "single-stream", 1, {"threads": 2}, {"threads": 1}, {"threads": 1}, "faster", 1.2, (1.1, 1.3),
        2.0, 1.7, 500.0, 600.0, rounds, 3.0,
    )  # fmt: skip
    document = json.loads(json.dumps(to_json(report)))
    again = from_json(TuneReport, document)
    assert again.rounds == rounds
    assert to_json(again) == to_json(report)
    with refusing(DataError):
        from_json(TuneReport, {**document, "schema_version": 99})


@pytest.mark.parametrize(
    ("artifact", "budget_s", "seconds", "rounds"),
    [
        ("latency_ms=4", 4, 4.27, [(0.3, 3), (1.0, 1)]),
        ("latency_ms=4,load_ms=200", 30, 28.6, [(0.781, 3), (3.577, 2), (3.660, 1)]),
        ("latency_ms=100", 60, 43.2, [(1.631, 3), (1.0, 1)]),
    ],
)
def test_rounds_share_the_budget(artifact, budget_s, seconds, rounds):
    """Durations on the simulated clock, where they are exact; a change of the plan changes them."""
    lines: list[str] = []
    places: list[tuple[int, int]] = []
    how = Search(fake(f"fake:{artifact}"), budget_s=budget_s, tell=lines.append)
    found = search((THREADS, PACE), how, lambda *place: places.append(place))
    assert [len(one.trials) for one in found.rounds] == [trials for _, trials in rounds]
    assert [one.duration_s for one in found.rounds] == pytest.approx([duration_s for duration_s, _ in rounds], rel=0.01)
    assert found.seconds == pytest.approx(seconds, rel=0.01)
    assert [line.split(" x")[0].split(";")[1] for line in lines] == [" best pace=quick: 2.000"] * len(rounds)
    assert [
        line.startswith(f"round {number}: {trials} setting")
        for number, (line, (_, trials)) in enumerate(zip(lines, rounds, strict=True), 1)
    ]
    assert {total for _, total in places} == {1000}
    assert 0 < places[0][0] < places[-2][0] < places[-1][0] == 1000
    (first, *_) = found.rounds
    assert [one.p50_ms * one.ratio for one in first.trials] == pytest.approx([float(artifact.split(",")[0][11:])] * 3, rel=0.01)


FACTORS = {"a": 0.9, "b": 1.1, "c": 0.7, "d": 1.2, "e": 0.8, "f": 1.05, "g": 0.95, "h": 1.3}


@pytest.mark.parametrize(
    ("budget_s", "seconds", "best", "rounds"),
    [(40, 48.7, "c", [(8, 0.80), (1, 1.0)]), (400, 283.3, "ce", [(8, 4.63), (2, 4.83), (1, 10.0)])],
)
def test_many_settings_run_in_heats_and_what_helps_is_combined(budget_s, seconds, best, rounds):
    def make(name: str, values: Mapping[str, object]) -> RunnerSpec:
        latency_ms = 100.0
        for setting, factor in FACTORS.items():
            latency_ms *= factor if values[setting] else 1
        return RunnerSpec(
            name, kwargs={"backend": "fake", "artifact": f"fake:latency_ms={latency_ms},load_ms=50"}, backend="fake"
        )

    found = search([Tunable(setting, 0, (1,)) for setting in FACTORS], Search(make, budget_s=budget_s))
    assert [(len(one.trials), round(one.duration_s, 2)) for one in found.rounds] == rounds
    assert "".join(sorted(found.best)) == best
    assert found.seconds == pytest.approx(seconds, rel=0.01)
    for round_ in found.rounds:
        assert [one.ratio for one in round_.trials] == sorted((one.ratio for one in round_.trials), reverse=True)
        for one in round_.trials:
            assert 1 / one.ratio == pytest.approx(math.prod(FACTORS[setting] for setting in one.changed), rel=0.001)
