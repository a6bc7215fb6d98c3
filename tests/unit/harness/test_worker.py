import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.artifacts import TensorSpec
from emca_deploy.errors import InputError, ModelError, WorkerError
from emca_deploy.harness.measure import worker_main
from emca_deploy.harness.measure.worker import Worker


def alive(pid):
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_dead(pid, seconds=10.0):
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_life(make_spec):
    files = open_files()
    with Worker(make_spec(latency_s=0.001, load_s=0.05)) as worker:
        opened = worker.open()
        assert opened.input.shape == ("batch", 3, 4, 4)
        assert opened.output.shape == ("batch", 4)
        assert opened.runtime["version"] == "1.0"
        assert 50 <= opened.load_ms < 60_000
        assert 1 <= worker.prepare(batch=2, seed=0).first_inference_ms < 60_000
        latencies_ns = worker.block(seconds=0.05, lead_calls=1)
        assert latencies_ns.dtype == np.int64
        assert 1 <= len(latencies_ns) <= 50
        assert latencies_ns.min() >= 1_000_000
        assert len(worker.block(seconds=0.0, min_calls=7)) == 7
        assert len(worker.block(seconds=60.0, max_calls=3)) == 3
        assert worker.cpu_s > 0
        assert worker.finish() > 5
        pid = worker.pid
    assert not alive(pid)
    assert worker._process.returncode == 0
    assert open_files() == files


def test_files_of_a_worker_leave_the_channel_alone(make_spec):
    with Worker(make_spec()) as worker:
        stdin, stdout, stderr, *others = worker.open().runtime["files"]
    assert (stdin, stdout, others) == (os.devnull, stderr, [])


def test_an_interrupt_of_all_processes_of_a_terminal_is_the_coordinators_to_handle(make_spec):
    with Worker(make_spec()) as worker:
        worker.open()
        os.kill(worker.pid, signal.SIGINT)
        assert worker.prepare(1, 0).in_flight == 1


@pytest.mark.parametrize(
    ("kind", "said", "expected"),
    [
        ("InputError", "no such size", "mine: no such size"),
        ("InputError", "m.onnx: no such size", "m.onnx: no such size"),
        ("InputError", "mine: no such size", "mine: no such size"),
        ("ModelError", "no such size", "no such size"),
        ("SystemExit", "no such size", "mine: no such size"),  # no class of ours
    ],
)
def test_errors_name_the_candidate_once(make_spec, kind, said, expected):
    worker = Worker(replace(make_spec("mine"), artifact="m.onnx"))
    error = worker._error_of({"error": kind, "problem": said, "remedy": "another size"})
    assert error.problem == expected
    assert type(error).__name__ == (kind if kind.endswith("Error") else "WorkerError")


def test_input_of_a_batch():
    free = TensorSpec("x", "float32", ("batch", 3, 4, 5))
    assert worker_main.input_shape(free, 7) == (7, 3, 4, 5)
    assert worker_main.input_shape(replace(free, shape=(2, 3, 4, 5)), 2) == (2, 3, 4, 5)
    with pytest.raises(InputError):
        worker_main.input_shape(replace(free, shape=(2, 3, 4, 5)), 1)
    with pytest.raises(ModelError):
        worker_main.input_shape(replace(free, shape=("batch", 3, "height", 5)), 1)


def test_peak_of_memory_without_proc(monkeypatch):
    known_mib = worker_main._peak_rss_mib()
    monkeypatch.setattr(worker_main, "peak_rss_mib", lambda: None)
    assert worker_main._peak_rss_mib() == pytest.approx(known_mib, rel=0.2)
    kib = worker_main._peak_rss_mib() * 1024
    monkeypatch.setattr(sys, "platform", "darwin")  # where the unit is a byte
    assert worker_main._peak_rss_mib() == pytest.approx(kib / (1 << 20))


def test_prints_of_a_library_do_not_break_the_channel(make_spec):
    with Worker(make_spec(does="print")) as worker:
        assert worker.open().runtime["version"] == "1.0"
        worker.prepare(1, 0)
        assert len(worker.block(0, min_calls=2)) == 2


def test_what_is_loaded_is_not_searched_for_garbage_before_every_block(make_spec):
    with Worker(make_spec(does="dislike garbage")) as worker:
        worker.open()
        worker.prepare(1, 0)
        assert len(worker.block(0, min_calls=2)) == 2


def test_our_errors_come_back_as_their_class(make_spec):
    with Worker(make_spec(does="refuse")) as worker:
        with pytest.raises(ModelError) as caught:
            worker.open()
        assert (caught.value.problem, caught.value.remedy) == ("model.onnx: is not a model", "export it again")


def test_other_errors_name_the_candidate(make_spec):
    with Worker(make_spec("mine", does="raise")) as worker:
        worker.open()
        with refusing(WorkerError, "mine", "ZeroDivisionError") as caught:
            worker.prepare(1, 0)
    assert caught.value.exit_code == 1


def test_crash_names_the_candidate_the_signal_and_what_was_said(make_spec):
    with Worker(make_spec("mine", does="abort")) as worker:
        worker.open()
        with refusing(WorkerError, "mine", "SIGABRT", "xxx | begin | free(): invalid pointer") as caught:
            worker.prepare(1, 0)
    assert "not of interest" not in caught.value.problem
    assert 3900 < caught.value.problem.count("x") < 4000


def test_killed_worker_suggests_memory(make_spec):
    with Worker(make_spec("mine")) as worker:
        worker.open()
        os.kill(worker.pid, signal.SIGKILL)
        with refusing(WorkerError, "mine", "SIGKILL") as caught:
            worker.prepare(1, 0)
    assert "memory" in caught.value.remedy


def test_factory_that_does_not_exist(make_spec):
    spec = type(make_spec())("mine", "no_such_module:make", {})
    with Worker(spec) as worker, refusing(WorkerError, "mine", "ModuleNotFoundError"):
        worker.open()


def test_hang_is_ended(make_spec):
    with Worker(make_spec("mine", does="hang")) as worker:
        worker.open()
        worker._timeout_s = 2.0  # from now on: starting may take longer on a busy machine
        with refusing(WorkerError, "mine", "2 s"):
            worker.prepare(1, 0)
        pid = worker.pid
    assert not alive(pid)


def test_a_block_has_its_own_seconds_on_top_of_the_timeout(make_spec):
    with Worker(make_spec()) as worker:
        worker.open()
        worker.prepare(1, 0)
        worker._timeout_s = 30.0
        assert len(worker.block(seconds=31.0, max_calls=1)) == 1


def test_a_process_that_does_not_end_is_ended(make_spec, monkeypatch):
    monkeypatch.setattr("emca_deploy.harness.measure.worker._END_S", 0.2)
    with Worker(make_spec(does="hang")) as worker:
        worker.open()
        worker._send("prepare", batch=1, seed=0)  # it is busy for ten minutes now
    assert not alive(worker.pid)


def test_fixed_batch_of_another_size_is_refused(make_spec):
    with Worker(make_spec("mine", batch=4)) as worker:
        worker.open()
        with refusing(InputError, "mine", 4, 1):
            worker.prepare(1, 0)
        assert worker.prepare(4, 0).first_inference_ms > 0


def test_error_in_the_block_ends_the_worker_at_once(make_spec):
    pids = []

    def interrupted():
        with Worker(make_spec(does="hang")) as worker:
            worker.open()
            worker._send("prepare", batch=1, seed=0)  # the worker is now busy for ten minutes
            pids.append(worker.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not alive(pids[0])


PARENT = """
    import sys, time
    from emca_deploy.harness.measure.worker import Worker
    from emca_deploy.harness.spec import RunnerSpec
    with Worker(RunnerSpec("mine", "harness_runners:make", {"does": "hang"})) as worker:
        worker.open()
        print(worker.pid, flush=True)
        worker.prepare(1, 0)
"""


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's parent death signal")
def test_no_orphan_however_the_coordinator_ends(by):
    """The worker is in a ten-minute call and cannot notice by itself."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", textwrap.dedent(PARENT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(by)
        try:
            parent.wait(15)
        finally:
            parent.kill()
    assert wait_until_dead(pid)


def test_a_module_of_the_working_folder_does_not_get_in(make_spec, tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise SystemExit('shadowed')")
    spec = make_spec()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with Worker(spec) as worker:
        assert worker.open().runtime["version"] == "1.0"
