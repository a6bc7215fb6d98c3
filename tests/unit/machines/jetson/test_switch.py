"""The power mode of a run, and the restored old one after every kind of end."""

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from refusals import refusing

from emca_deploy.errors import InputError, MissingError, UnknownNameError
from emca_deploy.interrupts import interrupt
from emca_deploy.machines.jetson.files import run_tool
from emca_deploy.machines.jetson.modes import read_power_modes
from emca_deploy.machines.jetson.session import board_session
from emca_deploy.machines.jetson.switch import hold_power_mode, left_behind, restore_left_behind

HOLD = """
import sys, time
from pathlib import Path
from emca_deploy.machines.jetson.switch import hold_power_mode

with hold_power_mode("MAXN_SUPER", Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def mode_of(board):
    return (board / "var/lib/nvpmodel/status").read_text().strip()


def start_holder(board):
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(board)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    assert mode_of(board) == "pmode:0002"
    return holder


@pytest.fixture
def board(recorded_board):
    """An Orin Nano Super, at 15 W."""
    return recorded_board("orin-nano-super")


def test_the_mode_is_held_and_put_back(board):
    with hold_power_mode("maxn_super", board) as mode:
        assert mode.id == 2
        assert mode_of(board) == "pmode:0002"
        assert json.loads((board / "var/lib/emca-deploy/power-mode.json").read_text()) == {"restore": 0, "name": "15W", "held": 2}
    assert mode_of(board) == "pmode:0000"
    assert not (board / "var/lib/emca-deploy/power-mode.json").exists()
    assert (board / "var/recorded/asked").read_text().split() == ["2", "0"]


def test_the_run_begins_when_the_cores_are_there(board):
    """On a board, cores come online shortly after nvpmodel returns."""
    online = board / "sys/devices/system/cpu/online"
    online.write_text("0-3\n")
    tool = board / "usr/sbin/nvpmodel"
    tool.write_text(
        tool.read_text().replace("printf 'pmode", f"(sleep 0.4; echo 0-5 >'{online}') >/dev/null 2>&1 &\n    printf 'pmode")
    )
    with hold_power_mode("25W", board):
        assert online.read_text() == "0-5\n"
    assert mode_of(board) == "pmode:0000"


def test_put_back_after_an_error(board):
    with pytest.raises(ZeroDivisionError), hold_power_mode("25W", board):
        raise ZeroDivisionError
    assert mode_of(board) == "pmode:0000"


def test_nothing_is_done_for_the_mode_that_is_on(board):
    with hold_power_mode("0", board):
        pass
    assert not (board / "var/recorded/asked").exists()
    assert not (board / "var/lib/emca-deploy").exists()


def test_a_mode_that_is_not_there(board):
    with refusing(UnknownNameError, "'FAST'"), hold_power_mode("FAST", board):
        pass
    assert not (board / "var/recorded/asked").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_put_back_after_a_signal(board, number):
    holder = start_holder(board)
    holder.send_signal(number)
    _, error = holder.communicate(timeout=20)
    assert holder.returncode != 0
    assert "KeyboardInterrupt" in error
    assert mode_of(board) == "pmode:0000"
    assert left_behind(board) is None


def test_a_second_interrupt_does_not_stop_putting_back(board):
    holder = start_holder(board)
    (board / "var/recorded/delay").write_text("0.4")
    holder.send_signal(signal.SIGINT)
    time.sleep(0.5)  # it is restoring the mode now, which takes several slow calls
    holder.send_signal(signal.SIGINT)
    holder.communicate(timeout=20)
    assert mode_of(board) == "pmode:0000"
    assert not (board / "var/lib/emca-deploy/power-mode.json").exists()


def test_what_a_killed_run_left_is_put_back_by_the_next(board):
    holder = start_holder(board)
    assert left_behind(board) is None  # it is still running
    holder.kill()
    holder.communicate(timeout=20)
    assert mode_of(board) == "pmode:0002"
    note = left_behind(board)
    assert (note.restore, note.name) == (0, "15W")
    with board_session(root=board) as record:
        assert mode_of(board) == "pmode:0000"
        assert any("killed" in warning and "15W" in warning for warning in record["warnings"])
    assert left_behind(board) is None
    assert restore_left_behind(board) is None


def test_the_next_run_with_a_mode_of_its_own_puts_back_the_first_mode(board):
    holder = start_holder(board)
    holder.kill()
    holder.communicate(timeout=20)
    with hold_power_mode("25W", board):
        assert mode_of(board) == "pmode:0001"
    assert mode_of(board) == "pmode:0000"
    assert left_behind(board) is None


def test_the_next_run_in_the_same_mode_puts_back_the_first_mode(board):
    holder = start_holder(board)
    holder.kill()
    holder.communicate(timeout=20)
    with hold_power_mode("MAXN_SUPER", board):
        assert mode_of(board) == "pmode:0002"
    assert mode_of(board) == "pmode:0000"


def test_a_mode_set_by_hand_since_then_stays(board):
    holder = start_holder(board)
    holder.kill()
    holder.communicate(timeout=20)
    (board / "var/lib/nvpmodel/status").write_text("pmode:0001\n")
    assert left_behind(board) is None
    with board_session(root=board) as record:
        assert not any("killed" in warning for warning in record["warnings"])
    assert mode_of(board) == "pmode:0001"
    (board / "var/lib/nvpmodel/status").write_text("pmode:0002\n")  # set by hand: no longer an interrupted run's mode
    assert left_behind(board) is None


def test_two_runs_do_not_both_set_the_mode(board):
    with (
        hold_power_mode("MAXN_SUPER", board),
        refusing(InputError),
        hold_power_mode("25W", board),
    ):
        pass
    assert mode_of(board) == "pmode:0000"


def test_a_run_beside_one_that_holds_the_mode_is_warned(board):
    with hold_power_mode("MAXN_SUPER", board), board_session(root=board) as record:
        assert any("another emca-deploy holds" in warning for warning in record["warnings"])
        assert mode_of(board) == "pmode:0002"


def test_a_reboot_is_never_answered_with_yes(board):
    with refusing(MissingError, "7W") as caught, hold_power_mode("7W", board):
        pass
    assert "sudo nvpmodel -m 3" in caught.value.remedy
    assert mode_of(board) == "pmode:0000"
    assert not (board / "var/recorded/rebooted").exists()
    assert not (board / "var/lib/emca-deploy/power-mode.json").exists()


def test_without_root(board):
    (board / "var/recorded/not-root").touch()
    with pytest.raises(MissingError, match="Permission denied") as caught, hold_power_mode("25W", board):
        pass
    assert "sudo" in caught.value.remedy
    assert not (board / "var/lib/emca-deploy/power-mode.json").exists()


def test_a_tool_that_says_yes_and_does_nothing(board):
    (board / "var/recorded/ignores").touch()
    with refusing(MissingError, "25W"), hold_power_mode("25W", board):
        pass


def test_a_mode_that_cannot_be_put_back(board):
    with refusing(MissingError, "15W") as caught, hold_power_mode("25W", board):
        (board / "var/recorded/not-root").touch()
    assert caught.value.remedy == "sudo nvpmodel -m 0"
    assert left_behind(board).restore == 0  # the next run tries again


def test_a_place_for_notes_that_cannot_be_written(board):
    (board / "var/lib/emca-deploy").write_text("a file, not a folder")
    with refusing(MissingError) as caught, hold_power_mode("25W", board):
        pass
    assert "sudo" in caught.value.remedy
    assert mode_of(board) == "pmode:0000"


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"restore": "x", "name": 1, "held": 2}', "[" * 100_000])
def test_a_damaged_note_is_none(board, text):
    folder = board / "var/lib/emca-deploy"
    folder.mkdir()
    (folder / "power-mode.json").write_text(text)
    assert left_behind(board) is None
    with hold_power_mode("25W", board):
        pass
    assert mode_of(board) == "pmode:0000"


def test_a_mode_that_cannot_be_read(board):
    (board / "var/recorded/not-root-query").touch()
    (board / "var/lib/nvpmodel/status").unlink()
    with refusing(MissingError), hold_power_mode("25W", board):
        pass


def test_in_a_thread(board):
    """Only the main thread handles signals; in other threads the mode is still restored at the end."""
    held = []

    def hold():
        with hold_power_mode("25W", board):
            held.append(mode_of(board))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert held == ["pmode:0001"]
    assert mode_of(board) == "pmode:0000"


def test_handlers_are_as_before(board):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with hold_power_mode("25W", board):
        assert signal.getsignal(signal.SIGHUP) is interrupt
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_tool_that_hangs_is_ended(board):
    (board / "var/recorded/delay").write_text("30")
    with refusing(MissingError, "nvpmodel", "0.3"):
        run_tool(board, "nvpmodel", "-q", timeout_s=0.3)
    (board / "var/recorded/delay").unlink()
    assert read_power_modes(board).current.name == "15W"
