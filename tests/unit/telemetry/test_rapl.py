"""RAPL counters, on recorded powercap trees."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy.errors import MissingError
from emca_deploy.telemetry.rapl import RaplSource

RANGE_UJ = 262_143_328_850  # range of a Xeon's package counter


def zone(root, name, title, energy_uj=0, range_uj=RANGE_UJ):
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{title}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    if range_uj is not None:
        (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder / "energy_uj"


def descriptors():
    return {place.name for place in Path("/proc/self/fd").iterdir()}


def test_dual_socket_intel_server(tmp_path):
    (tmp_path / "sys/class/powercap/intel-rapl").mkdir(parents=True)  # the control type has no counter
    packages = [zone(tmp_path, f"intel-rapl:{i}", f"package-{i}", 1_000_000) for i in range(2)]
    memories = [zone(tmp_path, f"intel-rapl:{i}:0", "dram", 500_000) for i in range(2)]
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 7)
    assert RaplSource.is_available(tmp_path)
    with RaplSource(tmp_path) as source:
        assert set(source.read().values()) == {0.0}
        packages[0].write_text("3000000\n")
        packages[1].write_text("2000000\n")
        memories[1].write_text("750000\n")
        assert source.read() == {
            "package_0_energy_j": 2.0,
            "package_0_dram_energy_j": 0.0,
            "package_1_energy_j": 1.0,
            "package_1_dram_energy_j": 0.25,
            "total_energy_j": 3.25,
        }


def test_cores_and_platform_are_not_added_to_the_package(tmp_path):
    parts = [("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "uncore"), ("intel-rapl:1", "psys")]
    files = [zone(tmp_path, *part) for part in parts]
    with RaplSource(tmp_path) as source:
        for place, energy_uj in zip(files, (4_000_000, 3_000_000, 500_000, 9_000_000), strict=True):
            place.write_text(str(energy_uj))
        values = source.read()
    assert values["total_energy_j"] == values["package_0_energy_j"] == 4
    assert values["package_0_core_energy_j"] == 3
    assert values["psys_energy_j"] == 9


def test_counter_wraps_at_its_range(tmp_path):
    place = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 1_000_000)
    with RaplSource(tmp_path) as source:
        place.write_text("2000000")
        assert source.read()["package_0_energy_j"] == pytest.approx(3.0)
        place.write_text("2500000")
        assert source.read()["package_0_energy_j"] == pytest.approx(3.5)
        place.write_text("500000")
        assert source.read()["package_0_energy_j"] == pytest.approx(3.5 + RANGE_UJ / 1e6 - 2)


def test_counter_that_goes_back_without_a_range_ends_with_the_total(tmp_path):
    lost = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000, range_uj=None)
    zone(tmp_path, "intel-rapl:1", "package-1", 0)
    with RaplSource(tmp_path) as source:
        assert "total_energy_j" in source.read()
        lost.write_text("1")
        assert set(source.read()) == {"package_1_energy_j"}
        assert "package_0" in source.notes[0]
        assert set(source.read()) == {"package_1_energy_j"}
        assert len(source.notes) == 1


def test_no_tree_is_missing(tmp_path):
    assert not RaplSource.is_available(tmp_path)
    with refusing(MissingError, tmp_path), RaplSource(tmp_path):
        pass


def test_garbage_is_no_counter(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", "none")
    with refusing(MissingError, tmp_path), RaplSource(tmp_path):
        pass


def test_root_only_is_said_with_the_remedy():
    code = (
        "import os, sys; from pathlib import Path\n"
        "from emca_deploy.telemetry.rapl import RaplSource\n"
        "os.geteuid() == 0 and os.setuid(65534)\n"
        "RaplSource(Path(sys.argv[1])).__enter__()\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        zone(root, "intel-rapl:0", "package-0").chmod(0o400 if os.geteuid() == 0 else 0)
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "root" in done.stderr
    assert "chmod a+r" in done.stderr


def test_descriptors_are_closed(tmp_path):
    for index in range(4):
        zone(tmp_path, f"intel-rapl:{index}", f"package-{index}")
    before = descriptors()
    with RaplSource(tmp_path) as source:
        source.read()
        assert len(descriptors()) > len(before)
    assert descriptors() == before


def test_a_read_that_is_late_closes_nothing_again(tmp_path, monkeypatch):
    """A recorder that waited long enough for its thread closes the sources while that still reads."""
    for index in range(2):
        zone(tmp_path, f"intel-rapl:{index}", f"package-{index}", 1)
    closed, close = [], os.close
    monkeypatch.setattr(os, "close", lambda descriptor: (closed.append(descriptor), close(descriptor)))
    with RaplSource(tmp_path) as source:
        opened = [each.descriptor for each in source._zones]

        def late(descriptor):
            source.__exit__()
            return int(os.pread(descriptor, 32, 0))

        monkeypatch.setattr("emca_deploy.telemetry.rapl._number", late)
        source.read()
    assert sorted(closed) == sorted(opened)
