"""A run on a board: its records and its warnings."""

import pytest
from refusals import refusing

from emca_deploy.errors import MissingError
from emca_deploy.machines.environment import collect_environment
from emca_deploy.machines.jetson.session import UNLOCKED, annotate_report, board_session, check_board
from emca_deploy.results.latency import LatencyResult, ProfileReport
from emca_deploy.results.load import LatencySummary


@pytest.fixture
def profile_report():
    """A report of one candidate."""
    latency = LatencySummary(*[1.0] * 9, p50_ci95=(1.0, 1.0))
    result = LatencyResult(
        "m.onnx", "onnxruntime", "fp32", "jetson", "single-stream", 1, latency, 1000.0, 1, 1.0, 1.0, 1.0, stable=True
    )
    return ProfileReport((result,), (), collect_environment())


def test_refused_elsewhere(tmp_path):
    with refusing(MissingError, "Jetson") as caught:
        check_board(tmp_path)
    assert caught.value.exit_code == 3
    assert "ssh://" in caught.value.remedy
    with pytest.raises(MissingError), board_session(root=tmp_path):
        pass


def test_what_is_recorded(recorded_board):
    with board_session(root=recorded_board("orin-nano-super")) as record:
        pass
    assert record["device"] == "orin-nano"
    assert record["unified_memory"] is True
    assert record["power_mode"] == {"name": "15W", "id": 0, "fastest": "MAXN_SUPER", "is_fastest": False, "before": "15W"}
    assert record["clocks"]["locked"] is False
    assert record["clocks"]["gpu_mhz"] == [306.0, 612.0, 306.0]
    assert record["temperature_c"]["gpu-thermal"] == 49.031
    assert record["after"]["gpu_mhz"] == 306.0
    assert record["power_rails"] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]
    slow, unlocked = record["warnings"]
    assert "15W, not MAXN_SUPER" in slow
    assert "--power-mode MAXN_SUPER" in slow
    assert unlocked == UNLOCKED


def test_zones_that_are_gated_are_left_out(recorded_board):
    board = recorded_board("agx-orin")
    zone = board / "sys/class/thermal/thermal_zone1/temp"
    zone.unlink()
    zone.mkdir()  # reading it fails, like a zone that is switched off
    with board_session(root=board) as record:
        zones = record["temperature_c"]
    assert sorted(zones) == ["cpu-thermal", "soc0-thermal", "tj-thermal"]  # cv0 reads -256


def test_a_board_at_its_fastest_has_no_warnings(recorded_board):
    with board_session(root=recorded_board("nano")) as record:
        assert record["warnings"] == []
        assert record["power_mode"]["is_fastest"] is True
        assert record["notes"] == []


def test_the_mode_of_the_run_is_recorded(recorded_board):
    with board_session("MAXN_SUPER", recorded_board("orin-nano-super")) as record:
        assert record["power_mode"]["name"] == "MAXN_SUPER"
        assert record["power_mode"]["before"] == "15W"
        assert not any("power mode is" in warning for warning in record["warnings"])


def test_clocks_that_the_mode_unlocked_are_told(recorded_board):
    board = recorded_board("nano")
    shown = board / "var/recorded/jetson_clocks"
    tool = board / "usr/sbin/nvpmodel"
    # Setting a mode sets its clocks, as on a board.
    unlock = f"sed -i s/MinFreq=921600000/MinFreq=76800000/ '{shown}'"
    tool.write_text(tool.read_text().replace("printf 'pmode", f"{unlock}\n    printf 'pmode"))
    with board_session("5W", board) as record:
        assert any("has unlocked the clocks" in warning for warning in record["warnings"])


def test_without_root_the_notes_say_so(recorded_board):
    board = recorded_board("orin-nano-super")
    (board / "var/recorded/not-root").touch()
    with board_session(root=board) as record:
        assert record["clocks"]["source"] == "kernel"
        (note,) = record["notes"]
    assert "sudo" in note


def test_a_run_that_the_board_slowed_down(recorded_board, profile_report):
    board = recorded_board("orin-nx")
    counters = board / "sys/class/hwmon/hwmon3"
    counters.mkdir(parents=True)
    for name, count in (("oc1", "0"), ("oc2", "7"), ("oc3", "no number")):
        (counters / f"{name}_event_cnt").write_text(f"{count}\n")
    with board_session(root=board) as record:
        pass
    assert record["throttled"] == {}
    assert annotate_report(profile_report, record).results[0].stable
    with board_session(root=board) as record:
        (counters / "oc2_event_cnt").write_text("9\n")
    assert record["throttled"] == {"oc2": 2}
    (result,) = annotate_report(profile_report, record).results
    assert not result.stable
    assert "2 times for average over-current" in result.warnings[-1]


def test_a_report_with_the_board(recorded_board):
    report = ProfileReport((), (), collect_environment())
    board, prints = recorded_board("orin-nano-super"), set()
    for mode in ("15W", "25W"):
        with board_session(mode, board) as record:
            annotated = annotate_report(report, record)
        assert annotated.environment["board"]["power_mode"]["name"] == mode
        assert annotated.environment["fingerprint_parts"]["power_mode"] == mode
        prints.add(annotated.environment["fingerprint"])
    assert len(prints) == 2  # results of two power modes have different fingerprints
