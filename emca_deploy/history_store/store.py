"""The store of results: an SQLite file to which results are only added.

Each result is one transaction, so two writers wait for each other, and a killed one leaves nothing half-written. The key is the
sha256 of the document's values: a document that is imported again, from whatever file, adds nothing.
"""

import json
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy.errors import DataError, InputError, MissingError, OutputError

__all__ = [
    "STORE_VARIABLE",
    "StoredFigure",
    "StoredResult",
    "add_result",
    "artifacts_in",
    "figures_in",
    "newest_documents",
    "store_file",
]

STORE_VARIABLE = "EMCA_DEPLOY_HISTORY"
STORE_VERSION = 1
_APPLICATION = 0x454D4341  # "EMCA"
_WAIT_S = 30.0
_REMEDY = "name another file with --store"

_TABLES = """
CREATE TABLE results (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  created TEXT NOT NULL,
  machine TEXT NOT NULL,
  processor TEXT NOT NULL,
  version TEXT NOT NULL,
  document BLOB NOT NULL
);
CREATE TABLE figures (
  result INTEGER NOT NULL REFERENCES results (id),
  artifact TEXT NOT NULL,
  backend TEXT NOT NULL,
  precision TEXT NOT NULL,
  target TEXT NOT NULL,
  scenario TEXT NOT NULL,
  batch INTEGER NOT NULL,
  runtime TEXT NOT NULL,
  figure TEXT NOT NULL,
  value REAL NOT NULL,
  low REAL,
  high REAL
);
CREATE INDEX figures_by_name ON figures (figure, artifact);
CREATE TRIGGER results_stay BEFORE UPDATE ON results BEGIN SELECT RAISE(ABORT, 'the history is only added to'); END;
CREATE TRIGGER results_remain BEFORE DELETE ON results BEGIN SELECT RAISE(ABORT, 'the history is only added to'); END;
CREATE TRIGGER figures_stay BEFORE UPDATE ON figures BEGIN SELECT RAISE(ABORT, 'the history is only added to'); END;
CREATE TRIGGER figures_remain BEFORE DELETE ON figures BEGIN SELECT RAISE(ABORT, 'the history is only added to'); END;
"""


@dataclass(frozen=True)
class StoredFigure:
    """A figure of one candidate.

    Attributes:
        artifact: Name of the artifact; of a deployment, its title and the candidate's name.
        runtime: Version of the backend's library; "" where unknown.
        ci95: 95 % interval; None where the result has none.
    """

    artifact: str
    backend: str
    precision: str
    target: str
    scenario: str
    batch: int
    runtime: str
    figure: str
    value: float
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class StoredResult:
    """A result without its figures.

    Attributes:
        kind: Kind of the document, as in `documents.kind_of`.
        created: Time of the measurement, ISO 8601 in UTC.
        machine: Fingerprint of the machine; "" where unknown.
        processor: Name of the machine's processor; "" where unknown.
        version: Version of emca-deploy that measured it; "" where unknown.
    """

    kind: str
    created: str
    machine: str
    processor: str
    version: str


def store_file(named: Path | None = None) -> Path:
    """Return the file of the history, which may not exist: `named`, that of EMCA_DEPLOY_HISTORY, or the one in the data folder.

    Raises:
        InputError: there is no home folder.
    """
    if named is not None:
        return named
    if variable := os.environ.get(STORE_VARIABLE):
        return Path(variable)
    base = Path(os.environ.get("XDG_DATA_HOME") or "")
    try:
        folder = base if base.is_absolute() else Path.home() / ".local" / "share"  # the XDG standard ignores a relative one
    except RuntimeError as exc:
        raise InputError("the file of the history is unknown: there is no home folder", _REMEDY) from exc
    return folder / "emca-deploy" / "history.db"


def add_result(place: Path, key: str, result: StoredResult, figures: Sequence[StoredFigure], document: Any) -> bool:
    """Add a result in one transaction; False where it is there already. The file is made if it is missing.

    Raises:
        OutputError: the file cannot be written.
        DataError: the file is no history, or of another version.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"{place}: cannot be made: {exc.strerror}", _REMEDY) from exc
    packed = zlib.compress(json.dumps(document, separators=(",", ":"), allow_nan=False).encode())
    with _opened(place, write=True) as connection:
        row = (key, result.kind, result.created, result.machine, result.processor, result.version, packed)
        columns = "key, kind, created, machine, processor, version, document"
        cursor = connection.execute(f"INSERT OR IGNORE INTO results ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        if cursor.rowcount < 1:
            return False
        connection.executemany(
            "INSERT INTO figures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(cursor.lastrowid, *_row(figure)) for figure in figures],
        )
    return True


def _row(figure: StoredFigure) -> tuple[Any, ...]:
    low, high = figure.ci95 or (None, None)
    named = (figure.artifact, figure.backend, figure.precision, figure.target, figure.scenario, figure.batch, figure.runtime)
    return *named, figure.figure, figure.value, low, high


def figures_in(place: Path, figure: str, artifact: str | None = None) -> list[tuple[StoredResult, StoredFigure]]:
    """Return a figure of all results, or of those of an artifact, in the order of their time; none where there is no file.

    Raises:
        DataError: the file is no history, or of another version.
        InputError: the file cannot be read.
    """
    if not place.exists():
        return []
    query = (
        "SELECT kind, created, machine, processor, version, artifact, backend, precision, target, scenario, batch, runtime,"
        " figure, value, low, high FROM figures JOIN results ON results.id = figures.result WHERE figure = ?"
    )
    values: list[Any] = [figure]
    if artifact is not None:
        query, values = f"{query} AND artifact = ?", [*values, artifact]
    with _opened(place) as connection:
        rows = connection.execute(f"{query} ORDER BY created, results.id, figures.rowid", values).fetchall()
    return [(StoredResult(*row[:5]), _figure(row[5:])) for row in rows]


def _figure(row: tuple[Any, ...]) -> StoredFigure:
    *named, low, high = row
    artifact, backend, precision, target, scenario, batch, runtime, figure, value = named
    ci95 = None if low is None else (low, high)
    return StoredFigure(artifact, backend, precision, target, scenario, batch, runtime, figure, value, ci95)


def artifacts_in(place: Path) -> list[str]:
    """Return the name of every artifact, in their order.

    Raises:
        DataError: the file is no history, or of another version.
        InputError: the file cannot be read.
    """
    if not place.exists():
        return []
    with _opened(place) as connection:
        return [str(name) for (name,) in connection.execute("SELECT DISTINCT artifact FROM figures ORDER BY artifact")]


def newest_documents(place: Path, machine: str, artifact: str) -> Iterator[tuple[str, str, Any]]:
    """Yield key, time and document of each result of an artifact on a machine, the newest first.

    Raises:
        DataError: the file is no history, is damaged, or of another version.
        InputError: the file cannot be read.
    """
    if not place.exists():
        return
    query = (
        "SELECT DISTINCT key, created, document FROM results JOIN figures ON results.id = figures.result"
        " WHERE machine = ? AND artifact = ? ORDER BY created DESC, results.id DESC"
    )
    with _opened(place) as connection:
        for key, created, packed in connection.execute(query, (machine, artifact)):
            try:
                document = json.loads(zlib.decompress(packed))
            except (ValueError, zlib.error) as exc:
                raise DataError(f"{place}: a result in it is damaged: {exc}", _REMEDY) from exc
            yield key, created, document


@contextmanager
def _opened(place: Path, *, write: bool = False) -> Iterator[sqlite3.Connection]:
    """Yield a connection, in one transaction where it writes."""
    try:
        with closing(sqlite3.connect(place, timeout=_WAIT_S, isolation_level=None)) as connection:
            if write:
                connection.execute("BEGIN IMMEDIATE")
            _check(place, connection, write=write)
            yield connection
            if write:
                connection.execute("COMMIT")
    except sqlite3.OperationalError as exc:
        error = MissingError if "locked" in str(exc) else OutputError if write else InputError
        raise error(f"{place}: {exc}", "wait until the other writer ends" if error is MissingError else _REMEDY) from exc
    except sqlite3.DatabaseError as exc:
        raise DataError(f"{place}: not a history of emca-deploy, or damaged: {exc}", _REMEDY) from exc


def _check(place: Path, connection: sqlite3.Connection, *, write: bool) -> None:
    (application,), (version,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0 and write:
        for statement in _TABLES.split(";\n"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {STORE_VERSION}")
    elif application != _APPLICATION:
        raise DataError(f"{place}: not a history of emca-deploy", _REMEDY)
    elif version != STORE_VERSION:
        raise DataError(f"{place}: a history of version {version}; this emca-deploy reads {STORE_VERSION}", _REMEDY)
