"""What a long search has found so far, kept in a side file so that an interrupted one goes on where it was."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import write_json

__all__ = ["SideFile", "side_path"]

SIDE_VERSION = 1


class SideFile:
    """Findings by name, each a JSON value, valid for one key.

    A file of another key, of another version, or damaged counts as none: it is replaced by the first finding. Every finding is
    written at once, whole or not at all. The key is all that the findings depend on, as JSON values.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self.path = path
        self._key: dict[str, Any] = json.loads(json.dumps(key))
        self._found = _read(path, self._key)
        self.reused = len(self._found)

    def get(self, name: str) -> Any:
        """Return a finding, or None."""
        return self._found.get(name)

    def put(self, name: str, value: Any) -> None:
        """Keep a finding.

        Raises:
            OutputError: the file cannot be written.
        """
        self._found[name] = value
        write_json(self.path, {"side_version": SIDE_VERSION, "key": self._key, "found": self._found})


def side_path(table: Path, backend: str, what: str) -> Path:
    """Return where a side file lies: beside the range table, which is beside the model unless it was named."""
    stem = table.name.removesuffix(".json").removesuffix(".ranges")
    return table.with_name(f"{stem}.{backend}.{what}.json")


def _read(path: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["side_version"] != SIDE_VERSION or document["key"] != key:
            return {}
        return dict(document["found"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
