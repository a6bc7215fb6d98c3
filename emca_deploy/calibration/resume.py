"""A side file with the findings of a long search, with which an interrupted search continues."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import write_json

__all__ = ["SideFile", "side_path"]

SIDE_VERSION = 1


class SideFile:
    """Findings by name, each a JSON value, valid for one key.

    The key holds everything that the findings depend on, as JSON values. The first finding replaces a file that is damaged, or of
    another key or version. Every finding is written at once, whole or not at all.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self.path = path
        self._key: dict[str, Any] = json.loads(json.dumps(key))
        self._found = _read(path, self._key)
        self.reused = len(self._found)

    def get(self, name: str) -> Any:
        """Return a finding; None where there is none."""
        return self._found.get(name)

    def put(self, name: str, value: Any) -> None:
        """Write a finding to the file.

        Raises:
            OutputError: the file cannot be written.
        """
        self._found[name] = value
        write_json(self.path, {"side_version": SIDE_VERSION, "key": self._key, "found": self._found})


def side_path(table: Path, backend: str, what: str) -> Path:
    """Return the path of a side file, next to the range table."""
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
