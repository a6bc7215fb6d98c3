"""Facts of a board: model, system on chip, releases, accelerators and memory, from files that every user may read."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from emca_deploy.errors import InputError, MissingError
from emca_deploy.machines.boards import BOARDS, JETPACKS, check_dla, numbers_of
from emca_deploy.machines.jetson.files import board_root, read_text
from emca_deploy.machines.jetson.releases import (
    cuda_of,
    installed_cuda,
    installed_tensorrt,
    jetpack_of,
    read_l4t,
    tensorrt_of,
)

__all__ = ["BOARD_FILES", "BoardFacts", "check_dla_core", "detect"]

SOC_CAPABILITY: dict[str, str] = {
    "tegra210": "5.3", "tegra186": "6.2", "tegra194": "7.2", "tegra234": "8.7", "tegra264": "11.0",
}  # fmt: skip


# (board, number of DLA cores) by part number of the module, or its beginning. Part numbers: jetson_stats
# (jtop/core/jetson_variables.py), which has those of modules only; DLA cores: NVIDIA's data sheets.
MODULES: dict[str, tuple[str | None, int]] = {
    "p2180": (None, 0),  # TX1
    "p3448": ("nano", 0),
    "p3310": ("tx2", 0),
    "p3489": ("tx2", 0),
    "p3636": ("tx2", 0),
    "p2888": ("agx-xavier", 2),
    "p3668": ("xavier-nx", 2),
    "p3701": ("agx-orin", 2),
    "p3767-0000": ("orin-nx", 2),
    "p3767-0001": ("orin-nx", 1),
    "p3767-0003": ("orin-nano", 0),
    "p3767-0004": ("orin-nano", 0),
    "p3767-0005": ("orin-nano", 0),
    "p3834": ("thor", 0),
}

# Words of the model, the longer ones first, for boards whose part number cannot be read.
MODEL_WORDS: tuple[tuple[str, str], ...] = (
    ("xavier nx", "xavier-nx"), ("orin nano", "orin-nano"), ("orin nx", "orin-nx"), ("agx orin", "agx-orin"),
    ("agx xavier", "agx-xavier"), ("jetson-agx", "agx-xavier"), ("thor", "thor"), ("tx2", "tx2"), ("quill", "tx2"),
    ("jetson nano", "nano"), ("jetson-nano", "nano"),
)  # fmt: skip

BOARD_FILES = (
    "etc/nv_tegra_release", "etc/nvpmodel.conf", "proc/device-tree/compatible", "proc/device-tree/model", "proc/meminfo",
    "sys/devices/soc0/machine", "usr/local/cuda/version.json", "usr/local/cuda/version.txt", "var/lib/dpkg/status",
    "var/lib/nvpmodel/status",
)  # fmt: skip
"""The files below / that `detect` and `read_power_modes` need; they are copied from a board without a usable Python."""

PART = re.compile(r"p\d{4}-\d{4}")
SOC = re.compile(r"\btegra\d{3}\b")


@dataclass(frozen=True)
class BoardFacts:
    """Facts about a Jetson board; None is unknown, never a guess.

    Attributes:
        model: Name in its device tree.
        device: Name of the board, as `plan --device` takes it ("orin-nx").
        module: Part number of the module ("p3767-0000").
        soc: System on chip ("tegra234").
        capability: Compute capability of its GPU ("8.7").
        l4t: Release of Jetson Linux ("36.4.4").
        jetpack: JetPack of this release.
        tensorrt: Installed version, else that of the JetPack.
        cuda: Installed version, else that of the JetPack.
        origins: How "tensorrt" and "cuda" are known: "installed" or "jetpack".
        dla_cores: Number of DLA cores.
        dla_missing: Why its DLA cores cannot be used with this TensorRT; None if they can, or if there are none.
        memory_mib: Size of the memory that processor and GPU share.
        unified_memory: Whether processor and GPU share their memory, as in every Jetson.
    """

    model: str
    device: str | None = None
    module: str | None = None
    soc: str | None = None
    capability: str | None = None
    l4t: str | None = None
    jetpack: str | None = None
    tensorrt: str | None = None
    cuda: str | None = None
    origins: dict[str, str] = field(default_factory=dict)
    dla_cores: int | None = None
    dla_missing: str | None = None
    memory_mib: float | None = None
    unified_memory: bool = True


def detect(root: Path | None = None) -> BoardFacts | None:
    """Return the facts of this board, or None if it is no Jetson. A `root` of None is `board_root()`."""
    root = board_root() if root is None else root
    compatible = _device_tree(root, "compatible")
    model = " ".join(_device_tree(root, "model").split()) or read_text(root / "sys/devices/soc0/machine") or ""
    soc = _soc(compatible)
    l4t = read_l4t(root)
    # Docker hides the device tree, so L4T's own file decides then.
    if soc is None and (l4t is None or not (root / "etc/nv_tegra_release").is_file()):
        return None
    part, device, dla_cores = _module(compatible, model)
    jetpack = jetpack_of(l4t)
    versions, origins = _versions(root, jetpack)
    return BoardFacts(
        model=model or "unknown Jetson",
        device=device,
        module=part,
        soc=soc,
        capability=SOC_CAPABILITY.get(soc or "") or (BOARDS[device].capability if device else None),
        l4t=l4t,
        jetpack=jetpack,
        tensorrt=versions.get("tensorrt"),
        cuda=versions.get("cuda"),
        origins=origins,
        dla_cores=dla_cores,
        dla_missing=_dla_missing(device, versions.get("tensorrt"), jetpack) if dla_cores else None,
        memory_mib=_memory_mib(root),
    )


def check_dla_core(facts: BoardFacts, core: int) -> None:
    """Refuse a DLA core that a board is known not to have, or that its TensorRT is known not to support.

    Raises:
        InputError: the board has no such core.
        MissingError: its TensorRT does not support it.
    """
    if facts.dla_cores is not None and core >= facts.dla_cores:
        have = f"cores 0 to {facts.dla_cores - 1}" if facts.dla_cores else "no DLA"
        raise InputError(f"--dla-core {core}: {facts.model} has {have}", "leave it out to build for the GPU")
    if facts.dla_missing is not None:
        raise MissingError(f"--dla-core {core}: {facts.dla_missing}", "leave it out to build for the GPU")


def _device_tree(root: Path, name: str) -> str:
    """Return a property of the root of the device tree, its strings separated by newlines."""
    for folder in ("sys/firmware/devicetree/base", "proc/device-tree"):
        try:
            return (root / folder / name).read_bytes().decode("utf-8", errors="replace").replace("\0", "\n").strip()
        except OSError:
            continue
    return ""


def _soc(compatible: str) -> str | None:
    known = [soc for soc in SOC.findall(compatible) if soc in SOC_CAPABILITY]
    return known[-1] if known else None


def _module(compatible: str, model: str) -> tuple[str | None, str | None, int | None]:
    """Return (part number, board, DLA cores); how many DLA cores there are, only the part number says."""
    for part in PART.findall(compatible):
        if found := MODULES.get(part) or MODULES.get(part.partition("-")[0]):
            return part, *found
    device = next((device for words, device in MODEL_WORDS if words in model.lower()), None)
    return None, device, 0 if device is not None and BOARDS[device].dla is False else None


def _versions(root: Path, jetpack: str | None) -> tuple[dict[str, str], dict[str, str]]:
    installed = {"tensorrt": installed_tensorrt(root), "cuda": installed_cuda(root)}
    brought = {"tensorrt": tensorrt_of(jetpack), "cuda": cuda_of(jetpack)}
    versions = {name: version for name in installed if (version := installed[name] or brought[name]) is not None}
    return versions, {name: "installed" if installed[name] else "jetpack" for name in versions}


def _dla_missing(device: str | None, tensorrt: str | None, jetpack: str | None) -> str | None:
    if device is None or tensorrt is None:
        return None
    try:
        check_dla(numbers_of(tensorrt), BOARDS[device], JETPACKS.get(jetpack or ""), "fp16")
    except InputError as exc:
        return exc.problem
    return None


def _memory_mib(root: Path) -> float | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", read_text(root / "proc/meminfo") or "", re.MULTILINE)
    return int(found[1]) / 1024 if found else None
