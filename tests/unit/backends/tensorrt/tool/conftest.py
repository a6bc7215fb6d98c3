"""A trtexec of any version, as an executable file."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emca_deploy.backends.tensorrt.tool.find import Trtexec, find_trtexec

HERE = Path(__file__).parent


class StandIn:
    """A stand-in's folder: `wish` changes its behaviour, `calls` returns the options of each call."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder, self.path, self.version = folder, folder / "trtexec", version
        shutil.copy(HERE / "options.json", folder / "options.json")
        # -S and -E cut the start-up time to a third
        self.path.write_text(f"#!{sys.executable} -SE\n{(HERE / 'stand_in.py').read_text()}")
        self.path.chmod(0o755)
        self.wish()

    def wish(self, **behaviour: Any) -> None:
        (self.folder / "behaviour.json").write_text(json.dumps({"version": self.version, **behaviour}))

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls.txt"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def find(self) -> Trtexec:
        return find_trtexec(path=str(self.path))


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[str], StandIn]:
    def make(version: str = "100300") -> StandIn:
        folder = tmp_path / f"tensorrt-{version}"
        folder.mkdir()
        return StandIn(folder, version)

    return make
