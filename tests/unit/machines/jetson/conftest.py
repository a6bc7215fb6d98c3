"""Copies of recorded boards, whose tools keep their state in the copy."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

BOARDS = Path(__file__).parents[3] / "data/boards"


@pytest.fixture
def recorded_board(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a recorded board with its tools."""

    def copy(name: str) -> Path:
        place = tmp_path / name
        shutil.copytree(BOARDS / name, place)
        # An earlier test's board must not be detected as this machine.
        assert "EMCA_DEPLOY_BOARD_ROOT" not in os.environ
        return place

    return copy
