import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.artifacts import Preprocessing
from emca_deploy.errors import DataError, InputError, OutputError
from emca_deploy.harness.accuracy import logits_store
from emca_deploy.harness.accuracy.collection import LogitsRun
from emca_deploy.harness.accuracy.logits_store import Kept, LogitsStore
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.tasks import logits_rows
from emca_deploy.tasks.flips import ImageNames

FOUR = Preprocessing(4, 4)
KEY = {"artifact": ["abc"], "limit": None}


@pytest.fixture
def npz(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"images": rng.standard_normal((11, 3, 4, 4)).astype(np.float32), "labels": rng.integers(0, 4, 11)}
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path


def batches(*sizes, width=3):
    rng = np.random.default_rng(1)
    return [rng.standard_normal((size, width)).astype(np.float32) for size in sizes]


def interrupted(path, logits, key=KEY):
    """An interrupted run with these logits."""
    store = LogitsStore(path, key)
    store.keep(lambda: logits)
    store.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    return store.partial


def resumed(path, key=KEY):
    with LogitsStore(path, key) as store:
        return store.resume()


def test_an_interrupted_run_keeps_all_that_it_has(tmp_path):
    (logits,) = batches(10)
    assert resumed(tmp_path / "l.npz") is None
    for done in (4, 10):
        interrupted(tmp_path / "l.npz", logits[:done])
        np.testing.assert_array_equal(resumed(tmp_path / "l.npz"), logits[:done])
    assert [path.name for path in tmp_path.iterdir()] == ["l.npz.partial"]


def test_a_run_that_is_killed_finds_what_was_saved_last(tmp_path, monkeypatch):
    (logits,) = batches(10)
    monkeypatch.setattr(logits_store, "SAVE_EVERY_S", 0.0)
    store = LogitsStore(tmp_path / "l.npz", KEY)
    for done in (4, 8):
        store.keep(lambda done=done: logits[:done])
        np.testing.assert_array_equal(resumed(tmp_path / "l.npz"), logits[:done])
        store._next_s = 0.0
    store._next_s = time.monotonic() + 60
    store.keep(lambda: logits)
    assert len(resumed(tmp_path / "l.npz")) == 8


def test_logits_are_saved_every_five_seconds_and_saving_takes_a_tenth_of_the_time(tmp_path, monkeypatch):
    times = iter([100.0, 104.9, 105.0, 107.0, 126.9, 127.0, 127.1, 132.0])
    monkeypatch.setattr(logits_store, "monotonic", lambda: next(times))
    store = LogitsStore(tmp_path / "l.npz", KEY)
    (logits,) = batches(5)
    saved = []
    for done in range(1, 5):
        store.keep(lambda done=done: logits[:done])
        saved.append(store.partial.exists() and len(LogitsStore._read(store, store.partial).answers))
    assert saved == [False, 2, 2, 4]  # the first save took 2 s, so the next one came 20 s later
    assert store._next_s == pytest.approx(132.1)


def test_what_a_killed_run_left_beside_its_complete_file_is_removed(tmp_path):
    (logits,) = batches(5)
    with LogitsStore(tmp_path / "l.npz", KEY) as store:
        store.complete(Kept(logits, None, ImageNames()))
        interrupted(tmp_path / "l.npz", logits)
        assert store.kept().labels is None
    assert [path.name for path in tmp_path.iterdir()] == ["l.npz"]


def test_a_place_that_cannot_be_written_is_refused_before_the_run(tmp_path):
    with pytest.raises(OutputError, match="absent"):
        resumed(tmp_path / "absent" / "l.npz")
    with pytest.raises(InputError):
        LogitsStore(tmp_path / "l.npy", KEY)


@pytest.mark.parametrize(
    "change",
    [{"labels": np.arange(4)}, {"indices": np.arange(4)}, {"files": np.array(["a"])}, {"logits": np.zeros(5, np.float32)}],
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, change):
    arrays = {"logits": np.zeros((5, 3), np.float32), "key": np.array(json.dumps(KEY))}
    whole = {
        **arrays,
        "labels": np.arange(5),
        "indices": np.arange(5),
        "files": np.array(list("abcde")),
        "classes": np.array(["c"]),
    }
    with LogitsStore(tmp_path / "l.npz", KEY) as store:
        np.savez(tmp_path / "l.npz", **whole)
        assert store.kept().names == ImageNames(("c",), (0, 1, 2, 3, 4), tuple("abcde"))
        np.savez(tmp_path / "l.npz", **{**whole, **change})
        with refusing(InputError, "l.npz"):
            store.kept()


@pytest.mark.parametrize("lost", [1, 40, 100])
def test_a_torn_file_is_refused_and_not_touched(tmp_path, lost):
    partial = interrupted(tmp_path / "l.npz", *batches(8))
    torn = partial.read_bytes()[:-lost]
    partial.write_bytes(torn)
    with refusing(InputError, "l.npz.partial"):
        resumed(tmp_path / "l.npz")
    assert partial.read_bytes() == torn


def test_a_flipped_bit_is_found(tmp_path):
    (logits,) = batches(8)
    partial = interrupted(tmp_path / "l.npz", logits)
    content = bytearray(partial.read_bytes())
    content[content.index(logits.tobytes()) + 5] ^= 1
    partial.write_bytes(content)
    with refusing(InputError, "l.npz.partial"):
        resumed(tmp_path / "l.npz")


def test_another_key_is_refused_and_names_what_differs(tmp_path):
    partial = interrupted(tmp_path / "l.npz", *batches(4))
    before = partial.read_bytes()
    with refusing(InputError, "l.npz", "limit"):
        resumed(tmp_path / "l.npz", {**KEY, "limit": 3})
    assert partial.read_bytes() == before


@pytest.mark.parametrize("content", [b"hello", b"hello\n", b"[]\n", b'{"version": 1}\n', b"\xff\xfe\n", b"{" * 100000 + b"\n"])
def test_a_foreign_file_is_neither_read_nor_touched(tmp_path, content):
    for name in ("l.npz.partial", "k.npz"):
        (tmp_path / name).write_bytes(content)
    with refusing(InputError, "l.npz.partial"):
        resumed(tmp_path / "l.npz")
    with LogitsStore(tmp_path / "k.npz", KEY) as store, refusing(InputError, "k.npz"):
        store.kept()
    assert {(tmp_path / name).read_bytes() for name in ("l.npz.partial", "k.npz")} == {content}


def test_an_npz_of_something_else_and_one_with_pickles(tmp_path):
    np.savez(tmp_path / "other.npz", logits=np.zeros((2, 2)))
    np.savez(tmp_path / "evil.npz", logits=np.array([{"a": 1}], object), key=np.array(json.dumps(KEY)))
    for name in ("other.npz", "evil.npz"):
        with LogitsStore(tmp_path / name, KEY) as store, refusing(InputError, name):
            store.kept()


def test_complete_run_is_read_back_whole(tmp_path):
    (logits,) = batches(5)
    names = ImageNames(("ant", "bee"), (1, 3, 5, 7, 9), ("a/1.png", "ü.png", "\udcff.png", "x", "y"))
    kept = Kept(logits, np.arange(5), names)
    interrupted(tmp_path / "l.npz", logits)
    with LogitsStore(tmp_path / "l.npz", KEY) as store:
        store.complete(kept)
        found = store.kept()
    np.testing.assert_array_equal(found.answers, logits)
    assert found.labels.tolist() == [0, 1, 2, 3, 4]
    assert found.names == names
    assert [path.name for path in tmp_path.iterdir()] == ["l.npz"]


def test_full_disk_is_said_and_what_was_saved_stays(tmp_path, small_limit):
    (logits,) = batches(1000)
    partial = interrupted(tmp_path / "l.npz", logits[:16])
    small_limit(partial.stat().st_size + 50)
    store = LogitsStore(tmp_path / "l.npz", KEY)
    store._next_s = 0.0
    with pytest.raises(OutputError, match=r"partial"), store:
        store.keep(lambda: logits)
    small_limit(None)
    np.testing.assert_array_equal(resumed(tmp_path / "l.npz"), logits[:16])
    assert [path.name for path in tmp_path.iterdir()] == ["l.npz.partial"]


@pytest.fixture
def small_limit():
    """Return a function that limits the size of files, like a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, previous)


def run_of(spec, npz, **changes):
    return replace(LogitsRun(spec, npz, FOUR, batch_size=2), **changes)


@pytest.mark.usefixtures("in_threads")
def test_run_goes_on_from_every_place_it_may_have_stopped_at(make_spec, npz, tmp_path):
    keep = tmp_path / "l.npz"
    whole = run_of(make_spec(), npz).collect(keep=keep)
    key = LogitsStore(keep, {})
    with np.load(keep) as arrays:
        key = json.loads(str(arrays["key"]))
    for done in (0, 10, 11):
        keep.unlink()
        interrupted(keep, whole.logits[:done], key)
        ticks = []
        found = run_of(make_spec(), npz).collect(lambda *tick, to=ticks: to.append(tick), keep)
        np.testing.assert_array_equal(found.logits, whole.logits)
        np.testing.assert_array_equal(found.labels, whole.labels)
        assert found.names == whole.names
        assert (found.reused, found.images_per_s is None) == (done, done == 11)
        assert ticks[0][0] == min(done + 2, 11)


def test_a_process_that_is_alive_is_used_and_stays(make_spec, npz):
    expected = run_of(make_spec(), npz).collect()
    with Worker(make_spec()) as worker:
        worker.open()
        worker.prepare(1, 0)
        worker.note_peak()
        peak_mib = worker.peak_rss_mib
        for _ in range(2):
            found = run_of(make_spec(), npz).collect(worker=worker)
            np.testing.assert_array_equal(found.logits, expected.logits)
        assert worker.finish() == peak_mib > 0


@pytest.mark.usefixtures("in_threads")
def test_what_the_logits_depend_on_is_told_apart(make_spec, npz, tmp_path):
    keep = tmp_path / "l.npz"
    run_of(make_spec(), npz).collect(keep=keep)
    same = run_of(make_spec(), npz, batch_size=5).collect(keep=keep)
    assert same.reused == 11
    for changes in ({"limit": 4}, {"preprocessing": Preprocessing(4, 5)}, {"spec": make_spec("other")}):
        spec = replace(make_spec(), artifact="other") if "spec" in changes else make_spec()
        with refusing(InputError, keep):
            run_of(**{"spec": spec, "npz": npz, **{k: v for k, v in changes.items() if k != "spec"}}).collect(keep=keep)
    os.utime(npz, ns=(1, 1))
    with refusing(InputError, keep, "data set"):
        run_of(make_spec(), npz).collect(keep=keep)


@pytest.mark.usefixtures("in_threads")
def test_logits_kept_before_there_was_a_choice_of_preprocessing_are_used_where_it_was_the_same(make_spec, npz, tmp_path):
    keep = tmp_path / "l.npz"
    then = replace(FOUR, exif="apply")
    run_of(make_spec(), npz, preprocessing=then).collect(keep=keep)
    with np.load(keep) as arrays:
        kept = dict(arrays)
    key = json.loads(str(kept["key"]))
    key["preprocessing"] = {name: key["preprocessing"][name] for name in ("image_size", "resize_size", "mean", "std")}
    np.savez(keep, **{**kept, "key": np.array(json.dumps(key))})
    assert run_of(make_spec(), npz, preprocessing=then).collect(keep=keep).reused == 11
    with refusing(InputError, keep, "preprocessing"):
        run_of(make_spec(), npz).collect(keep=keep)


@pytest.mark.usefixtures("in_threads")
def test_weights_beside_an_onnx_file_count(make_spec, npz, tmp_path):
    model, weights = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    model.write_bytes(b"graph")
    weights.write_bytes(b"weights")
    spec = replace(make_spec(), artifact=str(model))
    keep = tmp_path / "l.npz"
    run_of(spec, npz).collect(keep=keep)
    assert run_of(spec, npz).collect(keep=keep).reused == 11
    weights.write_bytes(b"others")
    with refusing(InputError, keep, "artifact"):
        run_of(spec, npz).collect(keep=keep)


@pytest.mark.usefixtures("in_threads")
def test_large_logits_lie_in_a_file(make_spec, npz, monkeypatch):
    small = run_of(make_spec(), npz).collect().logits
    monkeypatch.setattr(logits_rows, "MOST_IN_MEMORY_BYTES", 0)
    large = run_of(make_spec(), npz).collect().logits
    assert isinstance(large, np.memmap) or isinstance(large.base, np.memmap)
    np.testing.assert_array_equal(small, large)


@pytest.mark.usefixtures("in_threads")
def test_names_of_files_classes_and_numbers_come_back(make_spec, tmp_path):
    from PIL import Image

    for index in range(6):
        path = tmp_path / "d" / ("ant", "bee")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (index, 0, 0)).save(path)
    every = run_of(make_spec(), tmp_path / "d").collect().names
    assert every == ImageNames(
        ("ant", "bee"), None, ("ant/0.png", "ant/2.png", "ant/4.png", "bee/1.png", "bee/3.png", "bee/5.png")
    )
    few = run_of(make_spec(), tmp_path / "d", limit=4).collect().names
    assert few.files == tuple(every.files[index] for index in few.indices)
    assert few.index(2) == few.indices[2]


def test_missing_data_set_is_an_error_of_the_data(make_spec, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        run_of(make_spec(), tmp_path / "nowhere").collect(keep=tmp_path / "l.npz")


SCRIPT = """
import sys
from emca_deploy.cli import main
from emca_deploy.harness.accuracy import logits_store
logits_store.SAVE_EVERY_S = 0.0
main(sys.argv[1:])
"""


def test_interrupted_command_goes_on_where_it_was(npz, tmp_path):
    keep = tmp_path / "l.npz"
    slow = "fake:classes=4,size=4,latency_ms=100"
    arguments = ["validate", slow, "--data", str(npz), "--batch", "1", "--threads", "1", "--logits", str(keep), "--json"]
    command = [sys.executable, "-c", SCRIPT, *arguments]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "l.npz.partial"
    deadline = time.monotonic() + 30
    while not (partial.exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=30)
    assert first.returncode == 130, said
    assert str(partial) in said
    assert "Traceback" not in said
    assert partial.exists()
    assert not keep.exists()
    second = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "of 11 images" in second.stderr
    assert json.loads(second.stdout)["samples"] == 11
    assert not partial.exists()
