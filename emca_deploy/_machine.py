"""This machine's processor: its model, usable cores, and the instruction sets that decide how fast and how exact INT8 is."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "INSTRUCTION_SETS",
    "CpuInfo",
    "cpu_info",
    "default_threads",
    "find_gpus",
    "parse_cpuinfo",
    "parse_quota",
    "read_file",
    "read_governors",
    "read_memory_mib",
]

X86 = frozenset({"x86_64", "amd64"})
EXACT_INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Without one of these, x86 adds pairs of u8*s8 products in 16 bits (vpmaddubsw), which saturates."""

INSTRUCTION_SETS: dict[str, str] = {
    "avx2": "256-bit vectors; INT8 on these alone sums pairs in 16 bits and saturates",
    "avx512f": "512-bit vectors",
    "avx512_vnni": "INT8 dot products into 32 bits: fast and exact",
    "avx_vnni": "INT8 dot products into 32 bits, 256-bit vectors: fast and exact",
    "avx512_bf16": "bfloat16 dot products: faster than float32 on some processors, slower on others",
    "amx_int8": "INT8 matrix tiles: the fastest INT8 on x86",
    "amx_bf16": "bfloat16 matrix tiles",
    "asimddp": "INT8 dot products (SDOT/UDOT): fast INT8 on ARM",
    "i8mm": "INT8 matrix products: the fastest INT8 on ARM without SME",
    "sve": "scalable vectors",
    "bf16": "bfloat16 on ARM",
}
"""Instruction sets that matter to INT8, by the kernel's name of the flag, and why."""

ARM_PARTS: dict[tuple[int, int], str] = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x4E, 0x003): "NVIDIA Denver 2",
    (0x4E, 0x004): "NVIDIA Carmel",
}
"""Names of ARM cores by (implementer, part), since ARM kernels report numbers."""

CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class CpuInfo:
    """A processor, as one process sees it.

    Attributes:
        model: name of the processor.
        architecture: platform's name of the architecture, such as "x86_64" or "aarch64".
        logical_cores: number of cores this process may use, by its affinity and the cgroup's quota (rounded up).
        physical_cores: cores of the whole machine, without hyperthreads.
        instruction_sets: the supported ones of `INSTRUCTION_SETS`.
        online_cores: logical cores of the whole machine.
        quota_cores: the cgroup's limit in cores; None means no limit.
    """

    model: str
    architecture: str
    logical_cores: int
    physical_cores: int
    instruction_sets: tuple[str, ...]
    online_cores: int = 1
    quota_cores: float | None = None

    @property
    def saturates_int8(self) -> bool:
        """Whether it sums pairs of u8*s8 products in 16 bits: x86 without VNNI. False for an unknown processor."""
        x86 = self.architecture.lower() in X86
        return x86 and self.model != "unknown" and not EXACT_INT8 & set(self.instruction_sets)


class _ParsedCpu(NamedTuple):
    model: str | None
    processors: int
    physical_cores: int
    instruction_sets: tuple[str, ...]


def parse_cpuinfo(text: str) -> _ParsedCpu:
    """Parse the text of /proc/cpuinfo, with "flags" (x86) or "Features" (ARM); unknown text gives empty values."""
    blocks = [_fields(block) for block in text.split("\n\n")]
    processors = [fields for fields in blocks if fields.get("processor", "").isdigit()]
    flags: set[str] | None = None
    cores = set()
    for fields in processors:
        mine = set((fields.get("flags") or fields.get("features") or "").split())
        flags = mine if flags is None else flags & mine  # big.LITTLE: only flags of every core count
        if "core id" in fields:
            cores.add((fields.get("physical id", "0"), fields["core id"]))
    found = tuple(name for name in INSTRUCTION_SETS if name in (flags or set()))
    return _ParsedCpu(_model(blocks), len(processors), len(cores) or len(processors), found)


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _model(blocks: list[dict[str, str]]) -> str | None:
    names: list[str] = []
    for fields in blocks:
        name = _arm_model(fields) or fields.get("model name")
        if name and name not in names:
            names.append(name)
    return " + ".join(names) or None


def _arm_model(fields: dict[str, str]) -> str | None:
    try:
        implementer, part = int(fields["cpu implementer"], 16), int(fields["cpu part"], 16)
    except (KeyError, ValueError):
        return None
    generic = fields.get("model name", f"ARM implementer {implementer:#x} part {part:#x}")
    return ARM_PARTS.get((implementer, part), generic)


def parse_quota(text: str) -> float | None:
    """Return the cores that a cgroup's quota and period ("200000 100000") allow, or None for no limit ("max 100000", -1)."""
    try:
        quota, period = map(int, text.split())
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def read_file(path: Path) -> str:
    """Return a small file's text without outer blanks, or "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):  # a ValueError comes from a cgroup's name that is not a file name
        return ""


def _quota_cores(root: Path) -> float | None:
    limits = [parse_quota(read_file(folder / "cpu.max")) for folder in _own_groups(root)]
    v1 = root / "cpu"
    limits.append(parse_quota(f"{read_file(v1 / 'cpu.cfs_quota_us')} {read_file(v1 / 'cpu.cfs_period_us')}"))
    return min((limit for limit in limits if limit is not None), default=None)


def _own_groups(root: Path) -> list[Path]:
    """Return every cgroup v2 folder from this process's own up to the root, since each may have a limit."""
    for line in read_file(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::/"):
            own = root / line[len("0::/") :]
            return [own, *(parent for parent in own.parents if parent == root or root in parent.parents)]
    return [root]


def cpu_info() -> CpuInfo:
    """Return this machine's processor; never raises."""
    parsed = parse_cpuinfo(read_file(CPUINFO))
    online = parsed.processors or os.cpu_count() or 1
    quota = _quota_cores(CGROUP)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else online  # only Linux has it
    if quota is not None:
        usable = min(usable, max(1, -int(-quota // 1)))
    return CpuInfo(
        model=parsed.model or platform.processor() or "unknown",
        architecture=platform.machine(),
        logical_cores=max(1, usable),
        physical_cores=parsed.physical_cores or online,
        instruction_sets=parsed.instruction_sets,
        online_cores=online,
        quota_cores=quota,
    )


def default_threads() -> int:
    """Return the default number of threads of a model: one per physical core that this process may use."""
    info = cpu_info()
    return max(1, min(info.logical_cores, info.physical_cores))


def read_memory_mib() -> float | None:
    """Return this machine's memory in MiB, or None if unknown."""
    for line in read_file(MEMINFO).splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) / 1024
    return None


def read_governors(root: Path = Path("/sys/devices/system/cpu")) -> tuple[str, ...]:
    """Return the distinct frequency governors of the cores ("performance", "schedutil"); empty if none can be read."""
    found = {read_file(place) for place in root.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return tuple(sorted(found - {""}))


def find_gpus(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the names of the NVIDIA GPUs that the driver lists, or of a Jetson's integrated one, without any library."""
    listed = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    names = [_fields(read_file(place)).get("model", "NVIDIA GPU") for place in listed]
    if not names and any((root / place).exists() for place in ("dev/nvhost-gpu", "dev/nvgpu", "dev/nvidia0")):
        board = read_file(root / "proc/device-tree/model").strip("\0\n ")
        names = [f"{board} GPU" if board else "NVIDIA GPU"]
    return tuple(names)
