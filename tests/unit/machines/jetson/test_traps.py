"""What `doctor` reports about boards."""

from dataclasses import replace

import pytest

from emca_deploy.commands.doctor import board_rows
from emca_deploy.machines.jetson.facts import detect
from emca_deploy.machines.jetson.session import read_board_state
from emca_deploy.machines.jetson.switch import Note
from emca_deploy.machines.jetson.traps import examine_board, find_board_traps


def traps_of(board, *, is_root=True, left=None, **changes):
    facts = replace(detect(board), **changes)
    return [trap.id for trap in find_board_traps(facts, read_board_state(board), left, is_root=is_root)]


def test_no_board(tmp_path):
    assert examine_board(tmp_path) is None


def test_the_traps(recorded_board):
    nano, orin = recorded_board("nano"), recorded_board("agx-orin")
    assert traps_of(nano) == []
    assert traps_of(nano, is_root=False) == ["not-root"]
    assert traps_of(nano, left=Note(0, "MAXN", 1)) == ["power-mode-left"]
    assert traps_of(nano, jetpack=None, l4t=None) == ["unknown-release"]
    assert traps_of(orin) == ["power-mode", "clocks-not-locked"]
    assert traps_of(orin, dla_missing="not in this TensorRT") == ["power-mode", "clocks-not-locked", "dla-unsupported"]


def test_nothing_is_said_of_what_is_unknown(recorded_board):
    board = recorded_board("nano-2gb")
    for name in ("usr/sbin/nvpmodel", "usr/bin/jetson_clocks", "var/lib/nvpmodel/status", "etc/nvpmodel.conf"):
        (board / name).unlink()
    for place in board.glob("sys/class/devfreq/*/*_freq"):
        place.unlink()
    assert traps_of(board) == []
    document, traps = examine_board(board)
    assert not [trap for trap in traps if trap.id != "not-root"]
    rows = board_rows(document)
    assert ("power mode", "unknown; clocks unknown") in rows
    assert any("nvpmodel is not installed" in value for _, value in rows)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("agx-orin", "DLA cores: 2"),
        ("orin-nano-super", "DLA cores: none"),
        ("orin-nx", "TensorRT 10.3.0 (of this JetPack; not found installed)"),
        ("nano", "MAXN, the fastest; clocks locked"),
        ("thor-r39", "L4T 39.2.0, JetPack 7.2"),
    ],
)
def test_the_rows(recorded_board, name, words):
    document, _ = examine_board(recorded_board(name))
    assert any(words in value for _, value in board_rows(document))
    assert document["power_mode"]["name"]
