"""Power modes and clocks from the board's tools and files."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy.errors import UnknownNameError
from emca_deploy.machines.jetson.clocks import parse_show, read_clocks
from emca_deploy.machines.jetson.modes import PowerMode, fastest_mode, parse_modes, parse_query, read_power_modes

# board -> (current mode, fastest mode, whether the clocks are locked)
STATES = {
    "nano": ("MAXN", "MAXN", True),
    "nano-2gb": ("MAXN", "MAXN", False),
    "tx2": ("MAXP_CORE_ARM", "MAXN", False),
    "agx-xavier": ("MODE_15W", "MAXN", False),
    "xavier-nx": ("MODE_15W_6CORE", "MODE_20W_6CORE", False),
    "agx-orin": ("MODE_30W", "MAXN", False),
    "orin-nx": ("MAXN_SUPER", "MAXN_SUPER", False),
    "orin-nano-super": ("15W", "MAXN_SUPER", False),
    "thor": ("MAXN", "MAXN", False),
    "thor-r39": ("MAXN", "MAXN", True),
}


@pytest.mark.parametrize("name", STATES)
def test_every_board(recorded_board, name):
    board = recorded_board(name)
    modes, clocks = read_power_modes(board), read_clocks(board)
    assert (modes.current.name, modes.fastest.name, clocks.locked) == STATES[name]
    assert clocks.source == "jetson_clocks"
    assert modes.note == ""


def test_the_comment_in_the_file_is_no_mode(recorded_board):
    board = recorded_board("orin-nano-super")
    modes = parse_modes((board / "etc/nvpmodel.conf").read_text())
    assert [(mode.id, mode.name, mode.cores) for mode in modes] == [
        (0, "15W", 6), (1, "25W", 6), (2, "MAXN_SUPER", 6), (3, "7W", 4),
    ]  # fmt: skip
    assert modes[1].gpu_max_hz == 918e6
    assert modes[2].gpu_max_hz == modes[2].cpu_max_khz == math.inf


@pytest.mark.parametrize(
    ("names", "fastest"),
    [
        (("15W", "7W"), "15W"),
        (("MAXQ", "MAXP_CORE_ALL", "MAXN"), "MAXN"),
        (("MAXN", "MAXN_SUPER", "25W"), "MAXN_SUPER"),
        (("MODE_10W", "MODE_50W", "MODE_30W_ALL"), "MODE_50W"),
        (("QUIET", "LOUD"), None),
        (("ONLY",), "ONLY"),
        ((), None),
    ],
)
def test_the_fastest_by_name_alone(names, fastest):
    found = fastest_mode(tuple(PowerMode(number, name) for number, name in enumerate(names)))
    assert (found.name if found else None) == fastest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NV Power Mode: MAXN\n0\n", ("MAXN", 0)),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_30W_2CORE\n2\n", ("MODE_30W_2CORE", 2)),
        ("NV Power Mode: 15W\r\n0\r\n", ("15W", 0)),
        ("NV Fan Mode:quiet\nNV Power Mode: MAXN_SUPER\n 2 \n", ("MAXN_SUPER", 2)),
        ("NV Power Mode: MAXN\n", None),
        ("NV Power Mode: \n3\n", None),
        ("", None),
    ],
)
def test_what_a_query_prints(text, expected):
    assert parse_query(text) == expected


def test_the_mode_without_root(recorded_board):
    board = recorded_board("orin-nano-super")
    (board / "var/recorded/not-root-query").touch()
    assert read_power_modes(board).current.name == "15W"  # from the file that every user may read
    (board / "var/lib/nvpmodel/status").unlink()
    modes = read_power_modes(board)
    assert modes.current is None
    assert "sudo" in modes.note
    assert modes.fastest.name == "MAXN_SUPER"


def test_the_mode_without_the_tool(recorded_board):
    board = recorded_board("orin-nano-super")
    (board / "usr/sbin/nvpmodel").unlink()
    assert read_power_modes(board).current == read_power_modes(board).find("15w")
    (board / "var/lib/nvpmodel/status").unlink()
    assert "nvpmodel is not installed" in read_power_modes(board).note


def test_a_mode_that_the_file_does_not_have(recorded_board):
    board = recorded_board("orin-nano-super")
    (board / "var/lib/nvpmodel/status").write_text("pmode:0009 fmode:quiet\n")
    (board / "usr/sbin/nvpmodel").unlink()
    assert read_power_modes(board).current == PowerMode(9, "mode 9")


def test_finding_a_mode(recorded_board):
    modes = read_power_modes(recorded_board("orin-nano-super"))
    assert modes.find("maxn_super").id == modes.find("2").id == modes.find(" 02 ").id == 2
    with pytest.raises(UnknownNameError) as caught:
        modes.find("MAXN_SUPR")
    assert "nearest: MAXN_SUPER" in caught.value.remedy
    assert "3 7W" in caught.value.remedy


def test_the_clocks_of_a_nano(recorded_board):
    clocks = read_clocks(recorded_board("nano"))
    assert clocks.gpu == (921.6, 921.6, 921.6)
    assert clocks.cores[3] == (1479.0, 1479.0, 1479.0)
    assert clocks.emc == (204.0, 1600.0, 1600.0)
    assert clocks.emc_locked is True
    assert clocks.to_dict()["gpu_mhz"] == [921.6, 921.6, 921.6]


def test_cores_that_are_off_do_not_count():
    lines = [
        "Online CPUs: 0-1",
        "cpu0: Online=1 Governor=schedutil MinFreq=921600 MaxFreq=921600 CurrentFreq=921600 IdleStates: WFI=1 c7=1",
        "cpu1: Online=1 Governor=schedutil MinFreq=921600 MaxFreq=921600 CurrentFreq=921600 IdleStates: WFI=1 c7=1",
        "cpu2: Online=0 Governor=schedutil MinFreq=102000 MaxFreq=921600 CurrentFreq=102000 IdleStates: WFI=1 c7=1",
        "GPU MinFreq=614400000 MaxFreq=614400000 CurrentFreq=614400000",
    ]
    clocks = parse_show("\n".join(lines))
    assert sorted(clocks.cores) == [0, 1]
    assert clocks.locked is True
    assert (clocks.emc, clocks.emc_locked) == (None, None)
    newer = "\n".join(lines).replace("Online=1 ", "").replace("Online=0 ", "")  # JetPack 7.2
    assert sorted(parse_show(newer).cores) == [0, 1]
    assert sorted(parse_show(newer.replace("0-1", "0-1,2, Offline CPUs: 3")).cores) == [0, 1, 2]


def test_the_clocks_without_root(recorded_board):
    board = recorded_board("orin-nano-super")
    (board / "var/recorded/not-root").touch()
    clocks = read_clocks(board)
    assert clocks.source == "kernel"
    assert clocks.locked is False
    assert clocks.gpu == (306.0, 612.0, 306.0)
    assert sorted(clocks.cores) == [0, 1, 2, 3, 4, 5]
    assert clocks.emc is None
    assert "sudo" in clocks.notes[0]
    (board / "sys/devices/system/cpu/cpu5/online").write_text("0\n")
    for place in (*board.glob("sys/devices/system/cpu/cpu[0-4]/cpufreq/*_freq"), *board.glob("sys/class/devfreq/*/*_freq")):
        place.write_text("612000000\n")
    assert read_clocks(board).locked is True


def test_clocks_that_nothing_tells(recorded_board):
    board = recorded_board("nano-2gb")
    (board / "usr/bin/jetson_clocks").unlink()
    for place in board.glob("sys/class/devfreq/*/min_freq"):
        place.write_text("no number\n")
    clocks = read_clocks(board)
    assert clocks.locked is None
    assert "jetson_clocks is not installed" in clocks.notes[0]


@given(st.text(max_size=300))
def test_any_text(text):
    parse_query(text)
    fastest_mode(parse_modes(text))
    parse_show(text)
    parse_show(f"cpu0: MinFreq=1 MaxFreq=1 CurrentFreq=1\nOnline CPUs: {text}")
    parse_modes(f"< POWER_MODEL ID=0 NAME=A >\nGPU MAX_FREQ {text}")
