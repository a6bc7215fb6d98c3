"""The sampling thread, on real sources of this machine and on failing ones."""

import os
import threading
import time

from emca_deploy.errors import MissingError
from emca_deploy.telemetry.process_memory import ProcessMemorySource
from emca_deploy.telemetry.recorder import Recorder
from emca_deploy.telemetry.source import TelemetrySource

THREADS = "telemetry"


class Counting(TelemetrySource):
    """Source that counts its readings and can fail at one of them."""

    def __init__(self, name="counting", breaks_at=None, values=lambda n: {"n": float(n)}):
        self.name, self.n, self.breaks_at, self.values, self.is_open = name, 0, breaks_at, values, False
        self.notes = []

    def __enter__(self):
        self.is_open = True
        return self

    def __exit__(self, *error):
        self.is_open = False

    def read(self):
        self.n += 1
        if self.n == self.breaks_at:
            raise RuntimeError("bus error")
        return self.values(self.n)


class Absent(Counting):
    def __enter__(self):
        raise MissingError("no such sensor", "buy one")


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def test_samples_come_with_their_time_until_it_is_left():
    begin_ns = time.monotonic_ns()
    with Recorder([ProcessMemorySource(os.getpid(), "me")], interval_s=0.01) as recorder:
        wait_for(lambda: len(recorder.samples) >= 5)
    end_ns = time.monotonic_ns()
    samples = recorder.samples
    times = [sample.time_ns for sample in samples]
    assert begin_ns < times[0]
    assert times == sorted(times)
    assert times[-1] < end_ns
    assert {(sample.source, sample.owner) for sample in samples} == {("process_memory", "me")}
    assert all(1 < sample.values["rss_mib"] < 100_000 for sample in samples)
    assert recorder.reads == len(samples)
    assert 0 < recorder.core_share < 1
    time.sleep(0.05)
    assert len(recorder.samples) == len(samples)
    assert not [thread for thread in threading.enumerate() if thread.name == THREADS]


def test_source_that_breaks_is_dropped_with_a_note_and_the_others_go_on():
    broken, sound = Counting("broken", breaks_at=3), Counting("sound")
    with Recorder([broken, sound], interval_s=0.005) as recorder:
        wait_for(lambda: sound.n >= 10)
    assert broken.n == 3
    assert [sample.values["n"] for sample in recorder.samples if sample.source == "broken"] == [1, 2]
    assert not broken.is_open
    assert len(recorder.notes) == 1
    assert "broken" in recorder.notes[0]
    assert "bus error" in recorder.notes[0]


def test_absent_source_is_a_note_said_once_with_the_remedy():
    with Recorder([Absent("sensor"), Absent("sensor"), Counting()], interval_s=0.005) as recorder:
        wait_for(lambda: recorder.samples)
    assert recorder.notes == ["sensor: no such sensor: buy one"]
    assert {sample.source for sample in recorder.samples} == {"counting"}


def test_empty_reading_is_no_sample():
    source = Counting(values=lambda n: {})
    with Recorder([source], interval_s=0.005) as recorder:
        wait_for(lambda: source.n > 3)
    assert recorder.samples == ()


def test_slow_source_is_read_no_more_often_than_it_asks():
    slow, quick = Counting("slow"), Counting("quick")
    slow.interval_s = 3600.0
    with Recorder([slow, quick], interval_s=0.005) as recorder:
        wait_for(lambda: quick.n > 5)
        assert slow.n == 1
        recorder.sample_now()
        assert slow.n == 2


def test_source_added_later_is_sampled_and_closed():
    first, later = Counting("first"), Counting("later")
    with Recorder([first], interval_s=0.005) as recorder:
        wait_for(lambda: first.n > 2)
        recorder.add(later)
        wait_for(lambda: later.n > 2)
    assert not later.is_open


def test_notes_of_a_source_are_kept():
    source = Counting()
    source.notes = ["run as root", "run as root"]
    with Recorder([source], interval_s=0.005) as recorder:
        wait_for(lambda: source.n)
    assert recorder.notes == ["run as root"]


def test_no_source_at_all():
    with Recorder([], interval_s=0.005) as recorder:
        recorder.sample_now()
    assert recorder.samples == ()


def test_source_that_breaks_on_opening_or_closing_fails_no_run():
    class Rude(Counting):
        def __exit__(self, *error):
            super().__exit__()
            raise OSError("device is gone")

    class Broken(Counting):
        def __enter__(self):
            raise AttributeError("nvmlSomething")

    rude, sound = Rude("rude"), Counting("sound")
    with Recorder([Broken("broken"), sound, rude], interval_s=0.005) as recorder:
        wait_for(lambda: rude.n > 1)
    assert not rude.is_open
    assert not sound.is_open
    assert [note.partition(":")[0] for note in recorder.notes] == ["broken", "a source did not close"]
    assert "device is gone" in recorder.notes[1]


def test_values_that_are_none_are_left_out():
    source = Counting(values=lambda n: {"good": 1.0, "bad": float("nan"), "worse": float("inf")})
    with Recorder([source], interval_s=0.005) as recorder:
        wait_for(lambda: recorder.samples)
    assert recorder.samples[0].values == {"good": 1.0}
