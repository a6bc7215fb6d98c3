"""What a run on the agent's machine removes of earlier runs."""

import os
import time
from pathlib import Path

import pytest

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
