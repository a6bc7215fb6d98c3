"""Facts about a board, read from its files."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusing

from emca_deploy.errors import InputError, MissingError
from emca_deploy.machines.jetson.facts import BOARD_FILES, check_dla_core, detect
from emca_deploy.machines.jetson.modes import read_power_modes
from emca_deploy.machines.jetson.releases import L4T_JETPACKS, RELEASE, cuda_of, jetpack_of, tensorrt_of
from emca_deploy.results.codec import to_json

BOARDS = {
    "nano": ("nano", "p3448-0000", "tegra210", "5.3", "32.7.1", "4.6.1", "8.2.1", "10.2.300", 0),
    "nano-2gb": ("nano", "p3448-0003", "tegra210", "5.3", "32.6.1", "4.6", "8.0.1", "10.2", 0),
    "tx2": ("tx2", "p3310-1000", "tegra186", "6.2", "32.7.1", "4.6.1", "8.2.1", "10.2", 0),
    "agx-xavier-jp4": ("agx-xavier", "p2888-0001", "tegra194", "7.2", "32.7.1", "4.6.1", "8.2.1", "10.2", 2),
    "agx-xavier": ("agx-xavier", "p2888-0001", "tegra194", "7.2", "35.4.1", "5.1.2", "8.5.2", "11.4", 2),
    "xavier-nx": ("xavier-nx", "p3668-0000", "tegra194", "7.2", "35.5.0", "5.1.3", "8.5.2", "11.4", 2),
    "agx-orin": ("agx-orin", "p3701-0005", "tegra234", "8.7", "36.4.4", "6.2.1", "10.3.0.30", "12.6.68", 2),
    "orin-nx": ("orin-nx", "p3767-0001", "tegra234", "8.7", "36.4.4", "6.2.1", "10.3.0", "12.6", 1),
    "orin-nano-super": ("orin-nano", "p3767-0005", "tegra234", "8.7", "36.4.7", "6.2.1", "10.3.0.30", "12.6", 0),
    "thor": ("thor", "p3834-0008", "tegra264", "11.0", "38.4.0", "7.1", "10.13.3.9", "13.0", 0),
    "thor-r39": ("thor", "p3834-0008", "tegra264", "11.0", "39.2.0", "7.2", "10.16.2", "13.2", 0),
}


@pytest.mark.parametrize("name", BOARDS)
def test_every_board(recorded_board, name):
    facts = detect(recorded_board(name))
    assert facts is not None
    found = (
        facts.device, facts.module, facts.soc, facts.capability, facts.l4t, facts.jetpack, facts.tensorrt, facts.cuda,
        facts.dla_cores,
    )  # fmt: skip
    assert found == BOARDS[name]
    assert "\0" not in facts.model
    assert facts.unified_memory


def test_a_machine_that_is_no_jetson(tmp_path):
    assert detect(tmp_path) is None
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    (tree / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert detect(tmp_path) is None
    # An unknown Tegra is not treated as a similar known one.
    (tree / "compatible").write_bytes(b"nvidia,jetson_tk1\0nvidia,tegra124\0")
    assert detect(tmp_path) is None


def test_versions_say_where_they_are_from(recorded_board):
    facts = detect(recorded_board("orin-nano-super"))
    assert facts.origins == {"tensorrt": "installed", "cuda": "jetpack"}
    assert facts.memory_mib == 7620.0
    assert facts.model == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert to_json(facts)["origins"] == facts.origins


def test_an_unknown_release_is_unknown(recorded_board):
    board = recorded_board("orin-nx")
    (board / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.5, GCID: 1, BOARD: generic\n")
    facts = detect(board)
    assert facts.l4t == "36.4.5"
    assert (facts.jetpack, facts.tensorrt, facts.cuda, facts.origins) == (None, None, None, {})


def test_the_release_from_its_package(recorded_board):
    board = recorded_board("agx-orin")
    (board / "etc/nv_tegra_release").unlink()
    assert detect(board).l4t == "36.4.4"
    (board / "var/lib/dpkg/status").unlink()
    assert detect(board).l4t is None


def test_tensorrt_by_its_library(recorded_board):
    board = recorded_board("orin-nx")
    libraries = board / "usr/lib/aarch64-linux-gnu"
    libraries.mkdir(parents=True)
    for name in ("libnvinfer.so", "libnvinfer.so.10", "libnvinfer.so.10.7.0", "libnvinfer_plugin.so.10.9.9"):
        (libraries / name).touch()
    facts = detect(board)
    assert (facts.tensorrt, facts.origins["tensorrt"]) == ("10.7.0", "installed")


def test_a_removed_package_is_not_installed(recorded_board):
    board = recorded_board("nano")
    status = board / "var/lib/dpkg/status"
    assert "Package: libnvinfer7" in status.read_text()
    status.write_text(status.read_text().replace("Package: libnvinfer8\nStatus: install ok installed", "Package: libnvinfer8"))
    assert detect(board).origins["tensorrt"] == "jetpack"


@pytest.mark.parametrize("text", ["{", "[]", '{"cuda": 3}', '{"cuda": {"version": 12}}', "\xff", "[" * 100_000])
def test_a_damaged_version_file(recorded_board, text):
    board = recorded_board("agx-orin")
    (board / "usr/local/cuda/version.json").write_text(text)
    assert detect(board).cuda == "12.6.68"  # from its package


def test_a_cuda_without_its_link(recorded_board):
    board = recorded_board("agx-orin")
    (board / "usr/local/cuda").rename(board / "usr/local/cuda-12.6")
    (board / "var/lib/dpkg/status").unlink()
    assert detect(board).cuda == "12.6.68"


def test_in_a_container_that_hides_the_device_tree(recorded_board):
    board = recorded_board("agx-orin")
    shutil.rmtree(board / "sys/firmware")
    facts = detect(board)
    assert (facts.model, facts.soc, facts.capability, facts.dla_cores) == ("unknown Jetson", None, None, None)
    assert (facts.l4t, facts.tensorrt) == ("36.4.4", "10.3.0.30")
    (board / "sys/devices/soc0").mkdir(parents=True)
    (board / "sys/devices/soc0/machine").write_text("NVIDIA Jetson AGX Orin Developer Kit\n")
    facts = detect(board)
    assert (facts.device, facts.capability, facts.dla_cores) == ("agx-orin", "8.7", None)


def test_a_module_with_an_unknown_number(recorded_board):
    board = recorded_board("orin-nano-super")
    (board / "sys/firmware/devicetree/base/compatible").write_bytes(b"maker,carrier\0nvidia,tegra234\0")
    facts = detect(board)
    assert (facts.module, facts.device, facts.dla_cores) == (None, "orin-nano", 0)


def test_whether_the_dla_can_be_used(recorded_board):
    board = recorded_board("agx-orin")
    assert detect(board).dla_missing is None
    (board / "etc/nv_tegra_release").write_text("# R39 (release), REVISION: 2.0, GCID: 1\n")
    (board / "var/lib/dpkg/status").unlink()
    facts = detect(board)
    assert facts.dla_cores == 2
    assert "10.16" in facts.dla_missing


@pytest.mark.parametrize("name", BOARDS)
def test_a_few_files_tell_as_much(recorded_board, tmp_path, name):
    """The files of a remote board that suffice to identify it."""
    board, home = recorded_board(name), tmp_path / "home"
    (board / "proc/device-tree").symlink_to("../sys/firmware/devicetree/base")  # as on a board
    for path in BOARD_FILES:
        if (board / path).is_file():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(board / path, home / path)
    assert detect(home) == detect(board)
    assert read_power_modes(home).current == read_power_modes(board).current


def test_a_core_of_the_dla(recorded_board):
    one, two, none = (detect(recorded_board(name)) for name in ("orin-nx", "agx-orin", "orin-nano-super"))
    check_dla_core(one, 0)
    check_dla_core(two, 1)
    check_dla_core(replace(one, dla_cores=None), 7)  # unknown
    with refusing(InputError):
        check_dla_core(one, 1)
    with refusing(InputError, "DLA"):
        check_dla_core(none, 0)
    with refusing(MissingError, "10.16"):
        check_dla_core(replace(two, dla_missing="TensorRT 10.16 has no DLA"), 0)


def test_every_release_has_its_versions():
    for l4t, jetpack in L4T_JETPACKS.items():
        assert tensorrt_of(jetpack), l4t
        assert cuda_of(jetpack), l4t
    assert jetpack_of("36.3") == "6.0"
    assert jetpack_of("99.1") is None
    assert cuda_of(None) is cuda_of("9.9") is None


@given(st.binary(max_size=200))
def test_any_bytes_in_the_files(tmp_path_factory, data):
    root = tmp_path_factory.getbasetemp() / "any"
    for name in ("etc/nv_tegra_release", "proc/device-tree/compatible", "var/lib/dpkg/status", "proc/meminfo"):
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    facts = detect(root)
    assert facts is None or facts.l4t is None or RELEASE.search(data.decode(errors="replace").replace("\0", ""))
    assert facts is None or isinstance(facts.model, str)


def test_an_unreadable_file_is_no_file(recorded_board):
    board = recorded_board("nano")
    meminfo = Path(board / "proc/meminfo")
    meminfo.unlink()
    meminfo.mkdir()
    assert detect(board).memory_mib is None
