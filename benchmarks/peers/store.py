"""Figures as they come in, kept on disk whole after each, so that a run may be stopped and gone on with."""

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
    """One figure or a few that belong together.

    Attributes:
        part: "accuracy", "latency" or "cost".
        subject: the network.
        candidate: the quantizer; for latency the runtime.
        made_from: all that the figures depend on; figures made from anything else are not taken for these.
        figures: what was measured.
        created: when, and on which machine.
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
        path: read where it is there, and written after every row.
        again: find nothing of what is in it; a row stays until another of its name takes its place.

    Raises:
        InputError: the file is none of this benchmark's, and is not to be measured again.
    """

    def __init__(self, path: Path, *, again: bool = False) -> None:
        self.path = path
        self._rows = _read(path, again=again) if path.is_file() else []
        self._outdated = {_name(row) for row in self._rows} if again else set()

    def find(self, part: str, subject: str, candidate: str, made_from: dict[str, Any]) -> Row | None:
        """Return the row that was made from just this, or None."""
        plain = json.loads(json.dumps(made_from))
        name = (part, subject, candidate)
        mine = (row for row in self._rows if _name(row) == name and name not in self._outdated)
        return next((row for row in mine if row.made_from == plain), None)

    def add(self, row: Row) -> Row:
        """Keep a row in place of one of the same name, and write the file."""
        row = Row(**{**asdict(row), "environment": _environment()})
        self._rows = [old for old in self._rows if _name(old) != _name(row)]
        self._rows.append(row)
        self._outdated.discard(_name(row))
        document = {"schema_version": SCHEMA_VERSION, "command": sys.argv, "rows": [asdict(kept) for kept in self._rows]}
        write_json(self.path, document)
        return row


def code_identity(*rooms: str) -> str:
    """Return a hash of the source of some of our package's folders: figures of other code are not figures of this."""
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
    """Return a file's rows; none of a file of something else where all is measured again anyway."""
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
        raise InputError(f"{path}: not a result of this benchmark: {exc}", "name another --output, or say --again") from exc
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: is of schema version {version}, not {SCHEMA_VERSION}", "say --again")
    return rows
