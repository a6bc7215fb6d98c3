"""Lost connections and interrupts during a run: no measurement is lost, and no process stays."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from emca_deploy.remote import call, connection, session
from emca_deploy.requests import ProfileRequest
from emca_deploy.targets.registry import parse


def done(request, progress=None):
    return parse(request.target).run(request, progress)


BLOCKS = 4


def ask(model, target):
    return ProfileRequest((str(model),), target=target, duration_s=60.0, warmup_s=0.1, telemetry=False)


class After:
    """Progress callback that runs an action once a few blocks are measured."""

    def __init__(self, far, do):
        self.far, self.do, self.done = far, do, False

    def __call__(self, done, total):
        if done >= BLOCKS and not self.done and self.far.running("harness.measure.worker_main"):  # not while files are sent
            self.done = True
            self.do()


def check(report, raw, model):
    (result,) = report.results
    assert not report.complete
    assert result.artifact == str(model)
    assert len(result.block_calls) >= BLOCKS
    assert sum(result.block_calls) == len(raw.candidates[0].calls_ns)


def test_a_cut_connection_loses_nothing_measured(far, model):
    report, raw = done(ask(model, far.target), After(far, far.cut))
    check(report, raw, model)
    assert "lost" in report.environment["ssh"]["notes"][-1]
    far.wait_until_nothing_runs()
    assert not list((far.cache / "runs").iterdir())


@pytest.mark.slow  # 24 s of silence; test_trtexec_there.py tests a shorter one
def test_a_line_that_falls_silent_ends_the_run_there(far, model, monkeypatch):
    monkeypatch.setattr(session, "SILENCE_S", 3.0)
    monkeypatch.setattr(call, "ALIVE_EVERY_S", 0.5)
    monkeypatch.setattr(connection, "ASK_EVERY_S", 1)
    report, raw = done(ask(model, far.target), After(far, lambda: far.cut(signal.SIGSTOP)))
    check(report, raw, model)
    far.cut(signal.SIGKILL)
    far.wait_until_nothing_runs()


def test_ctrl_c_brings_home_what_was_measured(far, model):
    report, raw = done(ask(model, far.target), After(far, lambda: os.kill(os.getpid(), signal.SIGINT)))
    check(report, raw, model)
    far.wait_until_nothing_runs()
    assert not list((far.cache / "runs").iterdir())


def test_ctrl_c_before_anything_was_measured(far, model):
    def soon():
        while not far.pids:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Thread(target=soon)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        done(ask(model, far.target))
    timer.join()
    far.wait_until_nothing_runs()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_nothing_is_left_when_the_command_is_killed(far, model, number):
    words = ["profile", str(model), "--target", far.target, "--duration", "60", "--json"]
    process = subprocess.Popen([sys.executable, "-m", "emca_deploy", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not far.running("harness.measure.worker_main"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (130, -number)
    far.wait_until_nothing_runs()
