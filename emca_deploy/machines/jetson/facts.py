"""What board this is: model, system on chip, releases, accelerators and memory, from files that every user may read."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from emca_deploy.errors import InputError, MissingError
from emca_deploy.machines.boards import BOARDS, JETPACKS, numbers_of
from emca_deploy.machines.dla import check_dla
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


@dataclass(frozen=True)
class _Module:
    """A family of modules.

    Attributes:
        device: as `trt.boards` calls it; None where that does not have it.
        dla_cores: number of DLA cores, from NVIDIA's data sheets.
    """

    device: str | None
    dla_cores: int


# By part number, or its beginning: jetson_stats (jtop/core/jetson_variables.py); carriers have numbers that are not here.
MODULES: dict[str, _Module] = {
    "p2180": _Module(None, 0),  # TX1
    "p3448": _Module("nano", 0),
    "p3310": _Module("tx2", 0),
    "p3489": _Module("tx2", 0),
    "p3636": _Module("tx2", 0),
    "p2888": _Module("agx-xavier", 2),
    "p3668": _Module("xavier-nx", 2),
    "p3701": _Module("agx-orin", 2),
    "p3767-0000": _Module("orin-nx", 2),
    "p3767-0001": _Module("orin-nx", 1),
    "p3767-0003": _Module("orin-nano", 0),
    "p3767-0004": _Module("orin-nano", 0),
    "p3767-0005": _Module("orin-nano", 0),
    "p3834": _Module("thor", 0),
}

# Where the part number is not to be had: words of the model, the longer ones first.
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
"""What `detect` and the power mode need, below /: brought here from a board without a usable Python, they tell as much."""

PART = re.compile(r"p\d{4}-\d{4}")
SOC = re.compile(r"\btegra\d{3}\b")


@dataclass(frozen=True)
class BoardFacts:
    """What a Jetson board is. What nothing says is None: never a guess.

    Attributes:
        model: as its device tree has it.
        device: the board's name as `plan --device` takes it ("orin-nx").
        module: part number of the module ("p3767-0000").
        soc: system on chip ("tegra234").
        capability: compute capability of its GPU ("8.7").
        l4t: release of Jetson Linux ("36.4.4").
        jetpack: the JetPack that this release belongs to.
        tensorrt: the version installed, else the one that the JetPack brings.
        cuda: the CUDA version installed, else the one that the JetPack brings.
        origins: where "tensorrt" and "cuda" are known from: "installed" or "jetpack".
        dla_cores: 0 where there are none.
        dla_missing: why its DLA cores cannot be used with this TensorRT; None where they can, or there are none.
        memory_mib: size of the memory that processor and GPU share.
        unified_memory: True of every Jetson.
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
    """Return what board this is, or None where it is no Jetson.

    A `root` of None is /, or what the tests' environment variable says.
    """
    root = board_root() if root is None else root
    compatible = _device_tree(root, "compatible")
    model = " ".join(_device_tree(root, "model").split()) or read_text(root / "sys/devices/soc0/machine") or ""
    soc = _soc(compatible)
    l4t = read_l4t(root)
    # Docker hides the device tree: then only L4T's own file tells.
    if soc is None and (l4t is None or not (root / "etc/nv_tegra_release").is_file()):
        return None
    part, module = _module(compatible)
    device = module.device if module else _device_of(model)
    versions, origins = _versions(root, jetpack_of(l4t))
    dla_cores = module.dla_cores if module else _dla_cores(device)
    return BoardFacts(
        model=model or "unknown Jetson",
        device=device,
        module=part,
        soc=soc,
        capability=SOC_CAPABILITY.get(soc or "") or (BOARDS[device].capability if device else None),
        l4t=l4t,
        jetpack=jetpack_of(l4t),
        tensorrt=versions.get("tensorrt"),
        cuda=versions.get("cuda"),
        origins=origins,
        dla_cores=dla_cores,
        dla_missing=_dla_missing(device, versions.get("tensorrt"), jetpack_of(l4t)) if dla_cores else None,
        memory_mib=_memory_mib(root),
    )


def check_dla_core(facts: BoardFacts, core: int) -> None:
    """Refuse a DLA core that a board does not have, or that its TensorRT cannot use; what is unknown is not refused.

    Raises:
        InputError: it has no such core.
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


def _module(compatible: str) -> tuple[str | None, _Module | None]:
    for part in PART.findall(compatible):
        found = MODULES.get(part) or MODULES.get(part.partition("-")[0])
        if found:
            return part, found
    return None, None


def _device_of(model: str) -> str | None:
    lowered = model.lower()
    return next((device for words, device in MODEL_WORDS if words in lowered), None)


def _dla_cores(device: str | None) -> int | None:
    """Return 0 where a board has none; how many it has, only its module's number says."""
    return 0 if device is not None and BOARDS[device].dla is False else None


def _versions(root: Path, jetpack: str | None) -> tuple[dict[str, str], dict[str, str]]:
    versions, origins = {}, {}
    found = (
        ("tensorrt", installed_tensorrt(root), tensorrt_of(jetpack)),
        ("cuda", installed_cuda(root), cuda_of(jetpack)),
    )
    for name, installed, brought in found:
        version = installed or brought
        if version is not None:
            versions[name] = version
            origins[name] = "installed" if installed else "jetpack"
    return versions, origins


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
