"""Rails, their sum, and the GPU's clock."""

import pytest
from refusals import refusing

from emca_deploy.errors import MissingError
from emca_deploy.machines.jetson.gpu_clock import GpuClockSource, find_gpu, read_gpu_clock
from emca_deploy.machines.jetson.rails import Ina3221Source, find_rails, total_power_mw
from emca_deploy.machines.jetson.session import board_sources
from emca_deploy.telemetry.tegrastats import parse_line

# board -> the whole board's power, computed by hand from the recorded numbers; None where its rails do not show it
TOTALS = {
    "nano": 1750.0,  # POM_5V_IN
    "tx2": 3140.0,  # VDD_IN
    "agx-xavier-jp4": 18401.0 + 2301 + 4602 + 0 + 2914 + 4632,
    "agx-xavier": (24 + 25 + 65 + 0 + 16 + 145) * 19000 / 1000,
    "xavier-nx": 5008 * 1126 / 1000,
    "agx-orin": (19904 * 121 + 19904 * 80 + 4936 * 953) / 1000,  # without VDDQ_VDD2_1V8AO
    "orin-nx": 4944 * 956 / 1000,
    "orin-nano-super": 4944 * 976 / 1000,
    "thor": None,  # its monitors lack VIN
}


@pytest.mark.parametrize("name", TOTALS)
def test_the_power_of_every_board(recorded_board, name):
    with Ina3221Source(recorded_board(name)) as source:
        read = source.read()
    assert read.get("total_power_mw") == (pytest.approx(TOTALS[name]) if TOTALS[name] is not None else None)
    assert not any(key.startswith(("NC", "sum of")) for key in read)


def test_a_board_without_monitors(recorded_board):
    with refusing(MissingError, "INA3221"), Ina3221Source(recorded_board("nano-2gb")):
        pass


def test_monitors_move_from_boot_to_boot(recorded_board):
    board = recorded_board("orin-nx")
    monitors = board / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon"
    (monitors / "hwmon1").rename(monitors / "hwmon11")
    assert [rail.name for rail in find_rails(board)] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]


def test_a_rail_that_fails_is_absent_and_so_is_its_total(recorded_board):
    board = recorded_board("agx-orin")
    with Ina3221Source(board) as source:
        (board / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon2/curr1_input").write_text("")
        read = source.read()
    assert "VDD_GPU_SOC_power_mw" not in read
    assert "total_power_mw" not in read
    assert read["VDD_CPU_CV_power_mw"] == pytest.approx(19904 * 80 / 1000)
    assert source.read() == {}  # closed


def test_a_monitor_that_writes_its_unit(recorded_board):
    board = recorded_board("orin-nx")
    (board / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input").write_text("32760 ma\n")
    with Ina3221Source(board) as source:
        assert source.read()["VDD_IN_power_mw"] == pytest.approx(4944 * 32.760)


@pytest.mark.parametrize(
    ("line", "total"),
    [
        ("POM_5V_IN 1750/1628 POM_5V_GPU 0/0 POM_5V_CPU 366/406", 1750),
        ("VDD_IN 3177/3177 VDD_CPU 536/536 VDD_GPU 383/383 VDD_SOC 536/536 VDD_WIFI 0/0 VDD_DDR 575/575", 3177),
        ("GPU 18401/18525 CPU 2301/2330 SOC 4602/4602 CV 0/0 VDDRQ 2914/2911 SYS5V 4632/4620", 32850),
        ("GPU 467mW/467mW CPU 467mW/467mW SOC 1245mW/1245mW", None),
        (
            "VDD_GPU_SOC 4788mW/4788mW VDD_CPU_CV 798mW/798mW VIN_SYS_5V0 3842mW/3842mW NC 0mW/0mW "
            "VDDQ_VDD2_1V8AO 707mW/707mW NC 0mW/0mW",
            9428,
        ),
        ("VDD_GPU_SOC 100mW/1mW VDD_CPU_CV -398mW/-398mW VIN_SYS_5V0 3842mW/3842mW", 3544),
        ("VDD_GPU 1962mW/1962mW VDD_CPU_SOC_MSS 5887mW/5887mW VIN_SYS_5V0 5635mW/5635mW VIN 19780mW/19780mW", 19780),
        ("VDD_GPU 0mW/0mW VDD_CPU_SOC_MSS 4923mW/4544mW VIN_SYS_5V0 4327mW/4227mW", None),
        ("RAM 1/2MB", None),
    ],
)
def test_the_same_rule_for_rails_of_tegrastats(line, total):
    assert total_power_mw(parse_line(line).power_mw) == total


def test_the_clock_of_the_gpu(recorded_board):
    board = recorded_board("tx2")
    clock = read_gpu_clock(find_gpu(board))
    assert (clock.current_mhz, clock.min_mhz, clock.max_mhz, clock.load_percent) == (140.25, 114.75, 1300.5, 5.3)
    with GpuClockSource(board) as source:
        assert source.read() == {"gpu_mhz": 140.25, "gpu_load_percent": 5.3}


def test_the_video_engine_is_not_the_gpu(recorded_board):
    assert find_gpu(recorded_board("agx-orin")).name == "17000000.gpu"
    thor = recorded_board("thor")
    assert find_gpu(thor).name == "gpu-gpc-0"
    with GpuClockSource(thor) as source:
        assert source.read() == {"gpu_mhz": 314.0}  # NVML reports the load on that board


def test_no_gpu(tmp_path):
    assert find_gpu(tmp_path) is None
    with pytest.raises(MissingError), GpuClockSource(tmp_path):
        pass
    assert GpuClockSource(tmp_path).read() == {}


@pytest.mark.parametrize("name", [*TOTALS, "nano-2gb"])
def test_no_rail_is_read_twice(recorded_board, name):
    """All sources of a board together: each power channel comes from exactly one of them."""
    channels: list[str] = []
    for source in board_sources(recorded_board(name)):
        if source.name in {"ina3221", "tegrastats"}:
            with source:
                channels += [key for _, values in source.drain() for key in values if key.endswith("power_mw")]
    assert len(channels) == len(set(channels))
    assert ("total_power_mw" in channels) == (TOTALS.get(name) is not None)


def test_tegrastats_gives_the_power_where_the_monitors_cannot_be_read(recorded_board):
    board = recorded_board("thor")
    (board / "sys/bus").rename(board / "sys/hidden")
    (source,) = (source for source in board_sources(board) if source.name == "tegrastats")
    with source:
        assert source.drain()[-1][1]["total_power_mw"] == 19780
