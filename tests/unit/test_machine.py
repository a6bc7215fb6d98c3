"""Processors are identified from the kernel's text, recorded on several machines."""

import os
from pathlib import Path

import pytest

from emca_deploy import _machine
from emca_deploy._machine import (
    INSTRUCTION_SETS,
    CpuInfo,
    cpu_info,
    default_threads,
    find_gpus,
    parse_cpuinfo,
    parse_quota,
    read_governors,
    read_memory_mib,
)

SAPPHIRE_RAPIDS = """processor\t: {0}
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
physical id\t: 0
siblings\t: 4
core id\t\t: {1}
cpu cores\t: 2
flags\t\t: fpu vme avx2 avx512f avx512dq avx_vnni avx512_bf16 avx512_vnni amx_bf16 avx512_fp16 amx_tile amx_int8 arch_capabilities
bugs\t\t: spectre_v1
"""
HASWELL = """processor\t: 0
model name\t: Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu vme sse4_2 avx f16c rdrand fma bmi1 avx2 smep bmi2
"""
ORIN = """processor\t: {0}
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat ilrcpc flagm
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1
"""
NEOVERSE_V1 = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes asimddp sha512 sve asimdfhm dit uscat svei8mm svebf16 i8mm bf16 dgh rng
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd40
"""
RASPBERRY_4 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

Hardware\t: BCM2835
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""


def test_an_intel_server_with_hyperthreads() -> None:
    text = "\n".join(SAPPHIRE_RAPIDS.format(index, index // 2) for index in range(4))
    parsed = parse_cpuinfo(text)
    assert parsed.model == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert (parsed.processors, parsed.physical_cores) == (4, 2)
    assert set(parsed.instruction_sets) == {
        "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    }  # fmt: skip


def test_an_old_desktop_has_no_vnni() -> None:
    assert parse_cpuinfo(HASWELL).instruction_sets == ("avx2",)


def test_a_jetson_orin() -> None:
    parsed = parse_cpuinfo("\n".join(ORIN.format(index) for index in range(12)))
    assert parsed.model == "Cortex-A78AE"
    assert (parsed.processors, parsed.physical_cores) == (12, 12)
    assert parsed.instruction_sets == ("asimddp",)


def test_an_arm_server() -> None:
    parsed = parse_cpuinfo(NEOVERSE_V1)
    assert parsed.model == "Neoverse-V1"
    assert parsed.instruction_sets == ("asimddp", "i8mm", "sve", "bf16")


def test_an_arm_board_without_dot_products_and_with_a_trailing_block() -> None:
    parsed = parse_cpuinfo(RASPBERRY_4)
    assert (parsed.model, parsed.processors, parsed.instruction_sets) == ("Cortex-A72", 1, ())


def test_an_unknown_arm_part_keeps_its_numbers() -> None:
    assert parse_cpuinfo(NEOVERSE_V1.replace("0xd40", "0xfff")).model == "ARM implementer 0x41 part 0xfff"


def test_of_unlike_cores_only_what_all_have_counts() -> None:
    parsed = parse_cpuinfo(NEOVERSE_V1 + "\n" + RASPBERRY_4.replace("processor\t: 0", "processor\t: 1"))
    assert parsed.model == "Neoverse-V1 + Cortex-A72"
    assert parsed.instruction_sets == ()


@pytest.mark.parametrize("text", ["", "\n\n\n", "no colon", "processor : x\nflags : avx2", "\x00\x01: \x02"])
def test_unknown_text_gives_an_empty_answer(text: str) -> None:
    parsed = parse_cpuinfo(text)
    assert (parsed.processors, parsed.instruction_sets) == (0, ())


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", None), ("200000 100000\n", 2.0), ("150000 100000", 1.5), ("", None), ("x y", None), ("1 0", None)],
)
def test_quota_v2(text: str, cores: float | None) -> None:
    assert parse_quota(text) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1\n", None), ("50000\n", 0.5), ("", None), ("400000", 4.0)])
def test_quota_v1(quota: str, cores: float | None) -> None:
    assert parse_quota(f"{quota} 100000\n") == cores


@pytest.fixture
def four_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("\n".join(SAPPHIRE_RAPIDS.format(index, index // 2) for index in range(4)))
    monkeypatch.setattr(_machine, "CPUINFO", cpuinfo)
    monkeypatch.setattr(_machine, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    return tmp_path


def test_a_free_machine_uses_a_thread_a_physical_core(four_cores: Path) -> None:
    info = cpu_info()
    assert (info.logical_cores, info.physical_cores, info.online_cores, info.quota_cores) == (4, 2, 4, None)
    assert default_threads() == 2


def test_a_quota_limits_the_cores(four_cores: Path) -> None:
    (four_cores / "cpu.max").write_text("50000 100000\n")
    info = cpu_info()
    assert (info.logical_cores, info.quota_cores) == (1, 0.5)
    assert default_threads() == 1


def test_an_old_cgroup_limits_too(four_cores: Path) -> None:
    (four_cores / "cpu").mkdir()
    (four_cores / "cpu/cpu.cfs_quota_us").write_text("300000\n")
    (four_cores / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cpu_info().logical_cores == 3


def test_affinity_limits_the_cores(four_cores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2}, raising=False)
    assert cpu_info().logical_cores == default_threads() == 1


def test_a_system_that_tells_nothing_still_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CPUINFO", "MEMINFO", "CGROUP"):
        monkeypatch.setattr(_machine, name, tmp_path / "none")
    info = cpu_info()
    assert info.instruction_sets == ()
    assert info.logical_cores >= 1
    assert info.model
    assert read_memory_mib() is None


def test_this_machine() -> None:
    info = cpu_info()
    assert set(info.instruction_sets) <= set(INSTRUCTION_SETS)
    assert 1 <= info.logical_cores <= info.online_cores
    assert 1 <= default_threads() <= info.logical_cores


def test_governors(tmp_path: Path) -> None:
    assert read_governors(tmp_path) == ()
    for core, governor in enumerate(("schedutil", "performance", "schedutil")):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(governor + "\n")
    assert read_governors(tmp_path) == ("performance", "schedutil")


def test_gpus_of_a_server_and_of_a_jetson(tmp_path: Path) -> None:
    assert find_gpus(tmp_path) == ()
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvhost-gpu").touch()
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
    assert find_gpus(tmp_path) == ("NVIDIA Jetson AGX Orin Developer Kit GPU",)
    information = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0/information"
    information.parent.mkdir(parents=True)
    information.write_text("Model: \t\t NVIDIA GeForce RTX 4090\nIRQ:   \t\t 77\n")
    assert find_gpus(tmp_path) == ("NVIDIA GeForce RTX 4090",)


@pytest.mark.parametrize(
    ("architecture", "sets", "saturates"),
    [
        ("x86_64", ("avx2",), True),
        ("AMD64", (), True),
        ("x86_64", ("avx2", "avx512f"), True),
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), False),
        ("aarch64", (), False),
    ],
)
def test_who_adds_products_in_sixteen_bits(architecture: str, sets: tuple[str, ...], saturates: bool) -> None:
    assert CpuInfo("some processor", architecture, 2, 2, sets).saturates_int8 is saturates
    assert not CpuInfo("unknown", architecture, 2, 2, sets).saturates_int8
