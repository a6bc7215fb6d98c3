"""The JetPack of an L4T release, and the versions that are installed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from emca_deploy.machines.boards import JETPACKS
from emca_deploy.machines.jetson.files import read_text

__all__ = ["cuda_of", "installed_cuda", "installed_tensorrt", "jetpack_of", "read_l4t", "tensorrt_of"]

# L4T -> JetPack: jetson_stats (jtop/core/jetson_variables.py) and NVIDIA's JetPack archive. A release not here is unknown.
L4T_JETPACKS: dict[str, str] = {
    "32.6.1": "4.6",
    **{f"32.7.{patch}": f"4.6.{patch}" for patch in range(1, 7)},
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    **{f"35.6.{patch}": "5.1.5" for patch in (1, 2, 3)},
    "35.6.4": "5.1.6",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.2": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    **{f"38.2.{patch}": "7.0" for patch in (0, 1, 2)},
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}

# By the beginning of JetPack's version, the longest that fits: developer.nvidia.com/embedded/jetpack-sdk-*.
JETPACK_CUDA: dict[str, str] = {
    "4.6": "10.2", "5.": "11.4", "6.0": "12.2", "6.1": "12.6", "6.2": "12.6", "7.0": "13.0", "7.1": "13.0", "7.2": "13.2",
}  # fmt: skip

RELEASE = re.compile(r"R(\d{1,3})\b")
REVISION = re.compile(r"REVISION:\s*(\d{1,3}(?:\.\d{1,3})?)")
DEBIAN_VERSION = re.compile(r"(?:\d{1,9}:)?(\d{1,9}(?:\.\d{1,9})+)", re.ASCII)
NVINFER = re.compile(r"libnvinfer\d{0,2}")
CUDART = re.compile(r"cuda-cudart-\d+-\d+")
SO_VERSION = re.compile(r"libnvinfer\.so\.(\d{1,9}\.\d{1,9}\.\d{1,9})$", re.ASCII)


def read_l4t(root: Path) -> str | None:
    """Return the L4T release, such as "36.4.4", or None."""
    for line in (read_text(root / "etc/nv_tegra_release") or "").splitlines():
        release = RELEASE.search(line)
        revision = REVISION.search(line, release.end()) if release else None
        if release and revision:
            return f"{release[1]}.{revision[1]}"
    return _newest(root, re.compile("nvidia-l4t-core"))


def jetpack_of(l4t: str | None) -> str | None:
    """Return the JetPack of an L4T release, or None for one that is not in the table."""
    if l4t is None:
        return None
    return L4T_JETPACKS.get(l4t) or L4T_JETPACKS.get(f"{l4t}.0" if l4t.count(".") == 1 else l4t)


def tensorrt_of(jetpack: str | None) -> str | None:
    """Return the TensorRT that a JetPack brings, or None."""
    return JETPACKS[jetpack].tensorrt if jetpack in JETPACKS else None


def cuda_of(jetpack: str | None) -> str | None:
    """Return the CUDA that a JetPack brings, or None."""
    fits = [start for start in JETPACK_CUDA if jetpack is not None and jetpack.startswith(start)]
    return JETPACK_CUDA[max(fits, key=len)] if fits else None


def installed_tensorrt(root: Path) -> str | None:
    """Return the version of the installed TensorRT, from its package or its library's name, or None."""
    if package := _newest(root, NVINFER):
        return package
    libraries = [*(root / "usr/lib/aarch64-linux-gnu").glob("libnvinfer.so.*"), *(root / "usr/lib").glob("libnvinfer.so.*")]
    return _highest([match[1] for library in libraries if (match := SO_VERSION.fullmatch(library.name))])


def installed_cuda(root: Path) -> str | None:
    """Return the version of the installed CUDA, or None."""
    for folder in (root / "usr/local/cuda", *sorted((root / "usr/local").glob("cuda-*"), reverse=True)):
        if found := _cuda_version(folder):
            return found
    return _newest(root, CUDART)


def _cuda_version(folder: Path) -> str | None:
    try:
        version = json.loads(read_text(folder / "version.json") or "")["cuda"]["version"]
        return version if isinstance(version, str) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        found = re.search(r"CUDA Version (\d+\.\d+(?:\.\d+)?)", read_text(folder / "version.txt") or "")  # JetPack 4
        return found[1] if found else None


def _newest(root: Path, name: re.Pattern[str]) -> str | None:
    found = (DEBIAN_VERSION.match(version) for package, version in _packages(root) if name.fullmatch(package))
    return _highest([match[1] for match in found if match])


def _highest(versions: list[str]) -> str | None:
    return max(versions, key=lambda version: [int(part) for part in version.split(".")], default=None)


def _packages(root: Path) -> Iterator[tuple[str, str]]:
    """Yield (package, version) of every package that dpkg has installed."""
    for paragraph in (read_text(root / "var/lib/dpkg/status") or "").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed") and "Package" in fields and "Version" in fields:
            yield fields["Package"], fields["Version"]
