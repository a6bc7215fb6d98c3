"""What a run on the agent's machine removes of earlier runs."""

import hashlib
import json
import os
import stat
import time
from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy.errors import WorkerError
from emca_deploy.targets.agent.run_folder import LEFT, Run


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The agent's empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # a run changes the folder; this returns to the one before
    return tmp_path / "emca-deploy"


def aged(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    os.utime(path, (then := time.time() - days * 86400, then))
    return path


def test_logits_and_reports_are_removed_after_a_week(cache: Path) -> None:
    kept = [aged(cache / "logits" / "young", 6.5), aged(cache / "runs" / "young" / LEFT, 6.5)]
    removed = [aged(cache / "logits" / "old", 7.5), aged(cache / "runs" / "old" / LEFT, 7.5)]
    with Run("own") as run:
        assert run.folder.is_dir()
        assert [path.exists() for path in (*kept, *removed)] == [True, True, False, False]
    assert not run.folder.exists()


def test_a_run_that_left_no_report_is_removed_unless_it_still_runs(cache: Path) -> None:
    ended = aged(cache / "runs" / "ended" / "lock", 0).parent
    with Run("running") as running, Run("own"):
        assert running.folder.is_dir()
        assert not ended.exists()


def test_a_run_makes_its_folder_its_own_and_leaves_what_is_to_be_fetched(cache: Path) -> None:
    cache.mkdir()
    logits = aged(cache / "logits" / "mine", 0)
    with Run("mine") as run:
        assert (run.folder, Path.cwd()) == (cache / "runs" / "mine", cache / "runs" / "mine")
        assert stat.S_IMODE(run.folder.stat().st_mode) == 0o700
        run.until_fetched.append(logits)
        run.keep({"report": 1}, {"raw": {"path": "x"}})
    assert Path.cwd() == Path("/")
    assert json.loads((run.folder / LEFT).read_text()) == {"document": {"report": 1}, "files": {"raw": {"path": "x"}}}
    with Run("mine") as again:  # it is there for the one who asks for it again
        assert logits.exists()
        again.until_fetched.append(logits)
        again.forget()
    assert not run.folder.exists()
    assert not logits.exists()


def test_files_of_a_run_are_those_that_were_sent(cache: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    blob = cache / "blobs" / digest
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"weights")
    with Run("own") as run:
        for _ in range(2):
            run.link({"@0/model.onnx": digest})
        assert (run.folder / "@0" / "model.onnx").samefile(blob)
        assert not (run.folder / "@0" / "model.onnx").is_symlink()
        blob.write_bytes(b"damaged")
        with refusing(WorkerError, "@0/model.onnx"):
            run.link({"@0/model.onnx": digest})
        assert not blob.exists()
