"""Devices that run TensorRT: Jetson boards, with the contents of their JetPacks, and GPUs by compute capability."""

import re
from dataclasses import dataclass

from emca_deploy.errors import InputError, UnknownNameError

__all__ = [
    "BOARDS",
    "JETPACKS",
    "Board",
    "JetPack",
    "check_dla",
    "check_jetpack",
    "find_board",
    "find_jetpack",
    "jetpacks_of",
    "numbers_of",
]

CAPABILITY = re.compile(r"(?:sm_?)?(\d{1,2})\.?(\d)", re.IGNORECASE)
VERSION = re.compile(r"\d{1,3}(\.\d{1,3}){1,3}")

# NVIDIA's documents: 10.7 was the last 10.x with DLA; the notes of 10.16.1 say Orin's is not supported; 11.0 to 11.3 have none;
# "work-with-dla" of 11.4.1 restores it on AGX Orin with JetPack 7.2.2 or newer, strongly typed.
DLA_LAST_WITH_FLAGS = (10, 7)
DLA_FIRST_TYPED = (11, 4)
DLA_TYPED_BOARDS = ("agx-orin",)
DLA_TYPED_JETPACK = (7, 2, 2)


@dataclass(frozen=True)
class Board:
    """A GPU to build for.

    Attributes:
        name: Name on the command line, or the compute capability.
        title: Name for people.
        capability: Compute capability, "8.7".
        dla: Whether there are DLA cores; None if the compute capability does not decide it.
        jetpacks: Major versions of JetPack that run on it; empty if it is no Jetson.
    """

    name: str
    title: str
    capability: str
    dla: bool | None = False
    jetpacks: tuple[int, ...] = ()

    @property
    def is_jetson(self) -> bool:
        """Whether it is a Jetson board."""
        return bool(self.jetpacks)


# Compute capability: that of the system on chip, tegra210/186/194/234/264 (jetson_stats, jtop/core/jetson_variables.py).
# DLA: NVIDIA's Deep-Learning-Accelerator-SW README: AGX and NX, Xavier and Orin. Not Orin Nano, not Thor.
# JetPacks: L4T releases by board, jetson_stats, and JetPack's release notes on developer.nvidia.com.
BOARDS: dict[str, Board] = {
    device.name: device
    for device in (
        Board("nano", "Jetson Nano", "5.3", jetpacks=(4,)),
        Board("tx2", "Jetson TX2", "6.2", jetpacks=(4,)),
        Board("xavier-nx", "Jetson Xavier NX", "7.2", dla=True, jetpacks=(4, 5)),
        Board("agx-xavier", "Jetson AGX Xavier", "7.2", dla=True, jetpacks=(4, 5)),
        Board("orin-nano", "Jetson Orin Nano", "8.7", jetpacks=(5, 6, 7)),
        Board("orin-nx", "Jetson Orin NX", "8.7", dla=True, jetpacks=(5, 6, 7)),
        Board("agx-orin", "Jetson AGX Orin", "8.7", dla=True, jetpacks=(5, 6, 7)),
        Board("thor", "Jetson AGX Thor", "11.0", jetpacks=(7,)),
    )
}
"""Boards by name."""

TEGRA: dict[str, tuple[int, ...]] = {device.capability: device.jetpacks for device in BOARDS.values()}
"""Major versions of JetPack by compute capability of a Jetson."""


@dataclass(frozen=True)
class JetPack:
    """The contents of a JetPack.

    Attributes:
        python: Python version of its Ubuntu.
        devices: Compute capabilities that it supports; empty if all that its major version supports.
        certain: Whether NVIDIA's pages and packages agree.
    """

    version: str
    tensorrt: str
    python: str
    devices: tuple[str, ...] = ()
    certain: bool = True


# TensorRT: developer.nvidia.com/embedded/jetpack-sdk-*, DLA-SW operators/README, the JetPack page of pytorch.org/TensorRT;
# 7.0: read on a Thor with R38.2.2 (dataplayer12/SAM3-TensorRT pull request 24). 7.1: 10.13 by roboflow/inference pull requests
# 1935 and 2478, without the third number. 7.2: read on a Thor with R39.2.0 (pull request 2478). 7.2.2: TensorRT 11.4.1's DLA
# page says that it is supported there, not that the JetPack contains it. Python: that of Ubuntu 18.04, 20.04, 22.04, 24.04.
JETPACKS: dict[str, JetPack] = {
    pack.version: pack
    for pack in (
        JetPack("4.6", "8.0.1", "3.6"),
        *(JetPack(f"4.6.{patch}", "8.2.1", "3.6") for patch in range(1, 7)),
        JetPack("5.0.2", "8.4.1", "3.8"),
        JetPack("5.1", "8.5.2", "3.8"),
        *(JetPack(f"5.1.{patch}", "8.5.2", "3.8") for patch in range(1, 7)),
        JetPack("6.0", "8.6.2", "3.10"),
        JetPack("6.1", "10.3.0", "3.10"),
        JetPack("6.2", "10.3.0", "3.10"),
        JetPack("6.2.1", "10.3.0", "3.10"),
        JetPack("6.2.2", "10.3.0", "3.10"),
        JetPack("7.0", "10.13.3", "3.12", devices=("11.0",)),
        JetPack("7.1", "10.13.3", "3.12", devices=("11.0",), certain=False),
        JetPack("7.2", "10.16.2", "3.12"),
        JetPack("7.2.1", "10.16.2", "3.12"),
        JetPack("7.2.2", "11.4.1", "3.12", certain=False),
    )
}
"""JetPacks by version."""


def find_board(name: str) -> Board:
    """Return a board by name ("orin-nx"), or a GPU by compute capability ("8.7", "sm_87", "87").

    Raises:
        UnknownNameError: neither.
    """
    key = name.strip().lower().replace("_", "-").removeprefix("jetson-")
    if key in BOARDS:
        return BOARDS[key]
    match = CAPABILITY.fullmatch(name.strip())
    if match is None:
        raise UnknownNameError.of(
            "device", name, BOARDS, f"boards: {', '.join(BOARDS)}; other GPUs by compute capability, such as 8.6 or sm_86"
        )
    capability = f"{int(match[1])}.{match[2]}"
    return Board(
        capability, f"NVIDIA GPU, compute capability {capability}", capability,
        dla=None if any(board.dla for board in BOARDS.values() if board.capability == capability) else False,
        jetpacks=TEGRA.get(capability, ()),
    )  # fmt: skip


def find_jetpack(version: str) -> JetPack:
    """Return a JetPack by version.

    Raises:
        UnknownNameError: it is unknown.
    """
    if version not in JETPACKS:
        raise UnknownNameError.of(
            "JetPack", version, JETPACKS, f"known: {', '.join(JETPACKS)}; or give the board's --tensorrt-version"
        )
    return JETPACKS[version]


def check_jetpack(pack: JetPack, device: Board) -> None:
    """Refuse a JetPack that does not run on a device.

    Raises:
        InputError: it does not run on that device.
    """
    major = int(pack.version.partition(".")[0])
    if not device.is_jetson:
        raise InputError(f"--jetpack {pack.version}: {device.title} is no Jetson", "give --tensorrt-version instead")
    if major not in device.jetpacks or (pack.devices and device.capability not in pack.devices):
        raise InputError(
            f"JetPack {pack.version} is not for {device.title}", f"JetPacks for it: {', '.join(jetpacks_of(device))}"
        )


def jetpacks_of(device: Board) -> list[str]:
    """Return the versions of the JetPacks that run on a device, oldest first."""
    return [
        pack.version
        for pack in JETPACKS.values()
        if int(pack.version[0]) in device.jetpacks and (not pack.devices or device.capability in pack.devices)
    ]


def numbers_of(version: str) -> tuple[int, int, int]:
    """Return a version's first three numbers; a missing third is 0.

    Raises:
        InputError: the text is no version.
    """
    if VERSION.fullmatch(version) is None:
        raise InputError(f"'{version}' is not a version", "write it as 10.3 or 10.3.0.30")
    first, second, third = (*(int(part) for part in version.split(".")), 0)[:3]
    return first, second, third


def check_dla(version: tuple[int, int, int], device: Board, jetpack: JetPack | None, precision: str) -> None:
    """Refuse a DLA that the device lacks, that TensorRT does not support, or that does not compute in a precision.

    Raises:
        InputError: one of these.
    """
    with_dla = ", ".join(board.name for board in BOARDS.values() if board.dla)
    if device.dla is None:
        raise InputError(
            f"--dla: compute capability {device.capability} does not say whether the board has a DLA",
            f"name the board: {with_dla}",
        )
    if not device.dla:
        raise InputError(f"{device.title} has no DLA", f"leave --dla out; boards with one: {with_dla}")
    if precision == "fp32":
        raise InputError("a DLA does not compute in fp32", "use --precision int8 or fp16")
    if version[:2] <= DLA_LAST_WITH_FLAGS:
        return
    older = "use TensorRT 10.7 or older (JetPack 6), or leave --dla out"
    if version[:2] < DLA_FIRST_TYPED:
        raise InputError(f"TensorRT {version[0]}.{version[1]} has no DLA {precision}: 10.7 was the last before 11.4", older)
    if device.name not in DLA_TYPED_BOARDS:
        raise InputError(f"TensorRT {version[0]}.{version[1]} supports the DLA of AGX Orin only, not of {device.title}", older)
    if jetpack is not None and numbers_of(jetpack.version) < DLA_TYPED_JETPACK:
        raise InputError(f"TensorRT {version[0]}.{version[1]} needs JetPack 7.2.2 for the DLA, not {jetpack.version}", older)
    if precision == "int8":
        raise InputError(
            f"INT8 on a DLA is not known to work with TensorRT {version[0]}.{version[1]}: it takes neither Q/DQ nor a cache",
            "use --precision fp16, or TensorRT 10.7 or older (JetPack 6)",
        )
