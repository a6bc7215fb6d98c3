"""Store of figures, written whole after each one: a stopped run can be continued."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import emca_deploy
from emca_deploy.artifacts import write_json
from emca_deploy.errors import InputError
from emca_deploy.machines.environment import collect_environment
from peers.candidates import installed

__all__ = ["Row", "Store", "code_identity"]

SCHEMA_VERSION = 1
DISTRIBUTIONS = ("nncf", "nvidia-modelopt", "onnx-ir")


@dataclass(frozen=True)
class Row:
    """One figure, or several that belong together.

    Attributes:
        part: "accuracy", "latency" or "cost".
        subject: Name of the network.
        candidate: Name of the quantizer; for latency, of the runtime.
        made_from: Everything the figures depend on; a row with other values is not reused.
        figures: Measured values.
        created: Time and machine.
    """

    part: str
    subject: str
    candidate: str
    made_from: dict[str, Any]
    figures: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)


class Store:
    """The results file.

    Args:
        path: File that is read if it exists, and written after every row.
        again: Measure everything again; a row stays until a new one of its name replaces it.

    Raises:
        InputError: The file is not from this benchmark, and `again` is false.
    """

    def __init__(self, path: Path, *, again: bool = False) -> None:
        self.path = path
        self._rows = _read(path, again=again) if path.is_file() else []
        self._outdated = {_name(row) for row in self._rows} if again else set()

    def find(self, part: str, subject: str, candidate: str, made_from: dict[str, Any]) -> Row | None:
        """Return the row with exactly this `made_from`, or None."""
        plain = json.loads(json.dumps(made_from))
        name = (part, subject, candidate)
        mine = (row for row in self._rows if _name(row) == name and name not in self._outdated)
        return next((row for row in mine if row.made_from == plain), None)

    def add(self, row: Row) -> Row:
        """Add a row, replacing one of the same name, and write the file."""
        row = Row(**{**asdict(row), "environment": _environment()})
        self._rows = [old for old in self._rows if _name(old) != _name(row)]
        self._rows.append(row)
        self._outdated.discard(_name(row))
        document = {"schema_version": SCHEMA_VERSION, "command": sys.argv, "rows": [asdict(kept) for kept in self._rows]}
        write_json(self.path, document)
        return row


def code_identity(*rooms: str) -> str:
    """Return a hash of the sources in some of our package's folders: figures from other code are not reused."""
    digest = hashlib.sha256()
    root = Path(str(emca_deploy.__file__)).parent
    for room in rooms:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _environment() -> dict[str, Any]:
    found = collect_environment()
    return {**found, "versions": {**found["versions"], **{name: v for name in DISTRIBUTIONS if (v := installed(name))}}}


def _name(row: Row) -> tuple[str, str, str]:
    return row.part, row.subject, row.candidate


def _read(path: Path, *, again: bool) -> list[Row]:
    """Return a file's rows; none for a file of another kind when everything is measured again."""
    try:
        return _rows_of(path)
    except InputError:
        if again:
            return []
        raise


def _rows_of(path: Path) -> list[Row]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**row) for row in document["rows"]]
        version = document["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InputError(f"{path}: not a result of this benchmark: {exc}", "name another --output or pass --again") from exc
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema version is {version}, not {SCHEMA_VERSION}", "pass --again")
    return rows
