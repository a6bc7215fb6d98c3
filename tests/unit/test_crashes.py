"""SIGKILL at every file event: no reader accepts a partial file, the next run continues, and no hidden file stays."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.artifacts import Manifest, manifest_path, read_manifest, sha256_file, write_artifact, write_json
from emca_deploy.atomic import _sweep, atomic_write, hidden_folder
from emca_deploy.calibration.resume import SideFile
from emca_deploy.errors import ModelError, OutputError
from emca_deploy.harness.accuracy.logits_store import Kept, LogitsStore
from emca_deploy.targets.settings import save_tuned
from emca_deploy.tasks.flips import ImageNames

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = ("os.rename", "os.remove", "os.chmod", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
MOST_EVENTS = 60


def killed_at(event: int, work, *arguments) -> bool:
    """Run `work` in a child that kills itself before the file event with this number; return whether it reached it."""
    child = os.fork()
    if not child:
        seen = 0

        def count(name, values):
            nonlocal seen
            writes = name in EVENTS or (name == "open" and isinstance(values[2], int) and values[2] & WRITES)
            if writes and not str(values[0]).startswith("/dev/"):
                if seen == event:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

        try:
            sys.addaudithook(count)
            work(*arguments)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def make(path: Path, content: bytes) -> None:
    with write_artifact(path) as draft:
        draft.path.write_bytes(content)
        draft.manifest = Manifest("engine", "", "int8", backend="openvino", details={"source": content.decode()})


def make_in_a_hidden_folder(path: Path, content: bytes) -> None:
    with hidden_folder(path.parent) as folder:
        make(folder / "made", content)
        make(path, (folder / "made").read_bytes())


@pytest.mark.parametrize("work", [make, make_in_a_hidden_folder])
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_artifact_is_old_or_new_or_told_from_both(tmp_path, old, work):
    events = 0
    for event in range(MOST_EVENTS):
        folder = tmp_path / str(event)
        folder.mkdir()
        path = folder / "model.ov"
        if old is not None:
            make(path, old)
        if not killed_at(event, work, path, b"new"):
            break
        events += 1
        if path.exists():
            try:
                manifest = read_manifest(path)
            except ModelError:
                manifest = "told"
            assert manifest is not None, f"event {event}: an artifact that does not say what it is"
            if manifest != "told":
                assert manifest.sha256 == sha256_file(path)
                assert manifest.details["source"].encode() == path.read_bytes()
        _sweep.cache_clear()
        make(path, b"next")
        assert read_manifest(path).details == {"source": "next"}
        assert hidden(folder) == [], f"event {event}"
    assert events >= 6
    assert path.read_bytes() == b"new"


def side(path: Path) -> None:
    for index in range(2):
        SideFile(path, {"key": 1}).put(str(index), index)


def tuned(path: Path) -> None:
    save_tuned(path, {"backend": "openvino", "scenario": "offline", "values": {}})


def logits(path: Path) -> None:
    with LogitsStore(path, {"key": 1}) as store:
        if store.kept() is not None:
            return
        found = store.resume()
        rows = np.empty((0, 3), np.float32) if found is None else found
        for start in range(len(rows), 6, 2):
            rows = np.concatenate((rows, np.full((2, 3), start, np.float32)))
            store._next_s = 0  # as if the last save were long ago
            store.keep(lambda rows=rows: rows)
        store.complete(Kept(rows, None, ImageNames()))


def test_logits_go_on_after_any_kill(tmp_path):
    for event in range(MOST_EVENTS):
        folder = tmp_path / str(event)
        folder.mkdir()
        path = folder / "l.npz"
        was_killed = killed_at(event, logits, path)
        _sweep.cache_clear()
        logits(path)
        with LogitsStore(path, {"key": 1}) as store:
            assert store.kept().answers[:, 0].tolist() == [0, 0, 2, 2, 4, 4]
        assert sorted(name.name for name in folder.iterdir()) == ["l.npz"], f"event {event}"
        if not was_killed:
            break
    assert event >= 3


def test_a_side_file_and_tuned_settings_are_old_or_new(tmp_path):
    for event in range(MOST_EVENTS):
        folder = tmp_path / str(event)
        folder.mkdir()
        make(folder / "m.ov", b"engine")
        was_killed = [killed_at(event, side, folder / "s.json"), killed_at(event, tuned, folder / "m.ov")]
        if (folder / "s.json").exists():
            assert json.loads((folder / "s.json").read_text())["found"] in ({"0": 0}, {"0": 0, "1": 1})
        assert len(read_manifest(folder / "m.ov").settings) in (0, 1)
        _sweep.cache_clear()
        write_json(folder / "next.json", {})
        assert hidden(folder) == [], f"event {event}"
        if not any(was_killed):
            break
    assert event >= 3


HOLDER = """
import sys, time
from pathlib import Path
from emca_deploy.atomic import atomic_write, hidden_folder
with hidden_folder(Path(sys.argv[1])) as folder, atomic_write(Path(sys.argv[1]) / "slow") as temporary:
    temporary.write_text("slow")
    (folder / "a").write_text("a")
    print("ready", flush=True)
    sys.stdin.readline()
    assert (folder / "a").read_text() == "a"
"""


def test_files_of_a_living_process_stay_and_those_of_a_killed_one_go(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    living, killed = (subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2))
    for process in (living, killed):
        assert process.stdout.readline() == "ready\n"
    killed.kill()
    killed.wait()
    (tmp_path / ".emca-deploy-mine").write_text("not ours: too short a name")
    assert len(hidden(tmp_path)) == 5
    _sweep.cache_clear()
    with atomic_write(tmp_path / "other") as temporary:
        temporary.write_text("other")
    assert len(hidden(tmp_path)) == 3
    living.communicate("go on\n", timeout=60)
    assert living.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".emca-deploy-mine", "other", "slow"]


@pytest.mark.parametrize(("make_new", "use"), [("mkstemp", atomic_write), ("mkdtemp", hidden_folder)])
@pytest.mark.parametrize("phase", ["removed", "being removed"])
def test_what_another_run_sweeps_before_it_is_locked_is_made_again(tmp_path, monkeypatch, make_new, use, phase):
    real, made, holders = getattr(tempfile, make_new), [], []

    def swept_at_first(**where):
        new = real(**where)
        path = Path(new if make_new == "mkdtemp" else new[1])
        made.append(path)
        if len(made) == 1:
            holders.append(os.open(path, os.O_RDONLY))
            fcntl.flock(holders[0], fcntl.LOCK_EX)
            if phase == "removed":
                (path.rmdir if path.is_dir() else path.unlink)()
        return new

    monkeypatch.setattr(tempfile, make_new, swept_at_first)
    with use(tmp_path / "file" if use is atomic_write else tmp_path) as temporary:
        assert temporary == made[1]
        assert temporary.exists()
    os.close(holders[0])


def test_a_manifest_that_cannot_be_written_leaves_everything_as_it_was(tmp_path):
    path = tmp_path / "model.ov"
    make(path, b"old")
    before = {name.name: name.read_bytes() for name in tmp_path.iterdir()}

    def fail() -> None:
        with write_artifact(path) as draft:
            draft.path.write_bytes(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert {name.name: name.read_bytes() for name in tmp_path.iterdir()} == before
    manifest_path(path).unlink()
    manifest_path(path).mkdir()

    with pytest.raises(OutputError):
        make(path, b"new")
    assert path.read_bytes() == b"old"
