"""The search for settings, with fakes in this process."""

import json
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


def test_an_artifact_that_does_not_run_is_refused_at_once():
    with pytest.raises(EmcaError, match="as asked"):
        search((THREADS, PACE), Search(fake("fake:fail_at=1"), budget_s=60))


def test_a_budget_is_held_or_refused_with_one_that_is_enough():
    slow = fake("fake:latency_ms=4,load_ms=400")
    with pytest.raises(InputError) as caught:
        search((THREADS, PACE), Search(slow, budget_s=1))
    least = int(caught.value.remedy.split()[-1])
    assert 3 < least < 200
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
