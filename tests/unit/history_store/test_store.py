import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy.errors import DataError, OutputError
from emca_deploy.history_store.importing import import_result
from emca_deploy.history_store.store import StoredResult, add_result, artifacts_in, figures_in, store_file

DOCUMENTS = Path(__file__).parents[1] / "results" / "documents"
WRITER = """
import sys
from pathlib import Path
from emca_deploy.history_store.store import StoredFigure, StoredResult, add_result
store, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for index in range(int(sys.argv[3])):
    result = StoredResult("profile", f"2026-01-01T00:00:{index:05}", "m", "", "")
    figures = [StoredFigure(f"{name}{figure}", "b", "fp32", "cpu", "s", 1, "", "p50", float(index)) for figure in range(20)]
    add_result(store, f"{name}-{index}", result, figures, {"index": index})
    print(index, flush=True)
"""


def writer(store: Path, name: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WRITER, store, name, str(count)], stdout=subprocess.PIPE, text=True)


def counted(store: Path) -> dict[str, int]:
    """Return the number of figures of each result, and check the file."""
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute("SELECT key, count(figures.value) FROM results LEFT JOIN figures ON id = result GROUP BY id")
        return dict(rows.fetchall())


@pytest.mark.parametrize("path", sorted(DOCUMENTS.glob("*.json")), ids=lambda path: path.stem)
def test_results_of_every_version_are_imported_once(path, tmp_path):
    store = tmp_path / "folder" / "history.db"
    if not path.stem.startswith(("profile", "deploy", "validate")):
        with refusing(DataError, path):
            import_result(path, store)
        assert not store.exists()
        return
    assert import_result(path, store)
    copy = tmp_path / "copy.json"
    copy.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items())), indent=3))
    assert not import_result(copy, store)
    assert len(counted(store)) == 1
    figure = "drop" if path.stem.startswith("validate") else "p50"
    assert figures_in(store, figure)


def test_samples_in_another_file_are_kept(tmp_path):
    from emca_deploy.cli import run
    from emca_deploy.history_store.store import newest_documents

    words = ["--duration", "0.1", "--max-duration", "0.1", "--warmup", "0", "--processes", "1", "--no-telemetry"]
    place = tmp_path / "r.json"
    assert run(["profile", "fake:latency_ms=1", *words, "-o", str(place), "--raw", str(tmp_path / "r.npz"), "--no-samples"]) == 0
    assert import_result(place, tmp_path / "h.db")
    assert not import_result(place, tmp_path / "h.db")
    (tmp_path / "r.npz").unlink()
    values = json.loads(place.read_text())
    ((_, _, kept),) = newest_documents(tmp_path / "h.db", values["environment"]["fingerprint"], "fake:latency_ms=1")
    assert len(kept["results"][0]["samples_ms"]) == values["results"][0]["samples"] > 0


def test_two_writers_lose_nothing(tmp_path):
    store = tmp_path / "h.db"
    writers = [writer(store, name, 40) for name in ("a", "b")]
    assert [each.wait(60) for each in writers] == [0, 0]
    for each in writers:
        each.stdout.close()
    assert counted(store) == {f"{name}-{index}": 20 for name in "ab" for index in range(40)}


def test_a_killed_writer_leaves_whole_results_only(tmp_path):
    store, rng = tmp_path / "h.db", random.Random(0)
    reported: set[str] = set()
    for name in "abc":
        with writer(store, name, 100_000) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.05, 0.3))
            os.kill(process.pid, signal.SIGKILL)
            reported |= {f"{name}-{line.strip()}" for line in process.stdout if line.endswith("\n")}
    assert reported
    found = counted(store)
    assert reported <= found.keys()
    assert set(found.values()) == {20}
    assert add_result(store, "later", StoredResult("profile", "", "", "", ""), [], {})


def test_nothing_is_changed_or_removed(tmp_path):
    import_result(DOCUMENTS / "profile-v2.json", tmp_path / "h.db")
    with closing(sqlite3.connect(tmp_path / "h.db")) as connection:
        changes = ("UPDATE figures SET value = 0", "UPDATE results SET key = 'x'")
        for statement in ("DELETE FROM results", "DELETE FROM figures", *changes):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(statement)


def test_what_is_no_history_is_refused(tmp_path):
    (tmp_path / "text.db").write_text("no database\n" * 100)
    (tmp_path / "empty.db").touch()
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    for name in ("text.db", "other.db"):
        with refusing(DataError, tmp_path / name):
            import_result(DOCUMENTS / "profile-v2.json", tmp_path / name)
        with refusing(DataError, tmp_path / name):
            figures_in(tmp_path / name, "p50")
    import_result(DOCUMENTS / "profile-v2.json", tmp_path / "newer.db")
    with closing(sqlite3.connect(tmp_path / "newer.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with refusing(DataError, "99"):
        figures_in(tmp_path / "newer.db", "p50")
    with refusing(OutputError, tmp_path / "empty.db"):
        import_result(DOCUMENTS / "profile-v2.json", tmp_path / "empty.db" / "h.db")
    assert figures_in(tmp_path / "none.db", "p50") == artifacts_in(tmp_path / "none.db") == []


def test_the_place_of_the_history(tmp_path, monkeypatch):
    assert store_file(Path("x.db")) == Path("x.db")
    monkeypatch.setenv("EMCA_DEPLOY_HISTORY", "mine.db")
    assert store_file() == Path("mine.db")
    monkeypatch.delenv("EMCA_DEPLOY_HISTORY")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert store_file() == tmp_path / "emca-deploy" / "history.db"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert store_file() == tmp_path / "me/.local/share/emca-deploy/history.db"
