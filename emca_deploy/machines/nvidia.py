"""Which versions of TensorRT support which GPU (by compute capability), and in which precisions."""

from dataclasses import dataclass

from emca_deploy.errors import InputError, MissingError
from emca_deploy.machines.boards import Board

__all__ = ["RTX_CAPABILITIES", "check_capability", "check_hardware_precision", "check_rtx", "rtx_refusal"]

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Support:
    """The versions of TensorRT that have kernels for a compute capability.

    Attributes:
        first: First version with kernels.
        end: First later version without; None if the newest still has them.
        gap: First and last version of a gap without kernels, and what to install instead.
    """

    first: tuple[int, int]
    end: tuple[int, int] | None = None
    gap: tuple[tuple[int, int], tuple[int, int], str] | None = None


# TensorRT 8 and later.
SUPPORT: dict[str, Support] = {
    "5.3": Support((8, 0), (8, 6)),  # 8.5 was the last for SM 5.x: NVIDIA/TensorRT issue 3589
    "6.0": Support((8, 0), (10, 0)),  # "Unsupported SM: 0x601" in 10.0.1: NVIDIA/TensorRT issue 3826
    "6.1": Support((8, 0), (10, 0)),
    "6.2": Support((8, 0), (8, 4)),  # Jetson TX2: JetPack 4 is its last, and has 8.2
    "7.0": Support((8, 0), (10, 5)),  # release notes of 10.5.0
    "7.2": Support((8, 0), (8, 6)),  # Jetson Xavier: JetPack 5 is its last, and has 8.5
    "7.5": Support((8, 0)),
    "8.0": Support((8, 0)),
    "8.6": Support((8, 0)),
    # Jetson Orin: JetPack 5.0.2 has 8.4. No build of 10.8 for JetPack: NVIDIA/TensorRT issue 4347; "Target GPU SM 87 is not
    # supported by this TensorRT release" in 10.13.3, and 10.16.1 has it: NVIDIA-ISAAC-ROS/isaac-ros-cli issue 22.
    "8.7": Support((8, 4), gap=((10, 8), (10, 15), "TensorRT 10.7 on JetPack 6, or 10.16 with JetPack 7.2")),
    "8.9": Support((8, 5)),  # 8.4.1 lacks it, 8.5.1 has it: NVIDIA/TensorRT issue 2727
    "9.0": Support((8, 5)),  # release notes of 8.5.1
    "10.0": Support((10, 8)),  # release notes of 10.8.0
    "11.0": Support((10, 13)),  # Jetson Thor: JetPack 7.0
    "12.0": Support((10, 8)),  # release notes of 10.8.0; 10.7 refuses it
}

RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""Members of TensorRT-RTX 1.7's ComputeCapability."""

# NVIDIA's support matrix of TensorRT 8.5, "Hardware and Precision".
WITHOUT: dict[str, tuple[str, ...]] = {"fp16": ("6.1",), "int8": ("5.3", "6.0", "6.2")}


def rtx_refusal(capability: str | None) -> str | None:
    """Return why TensorRT-RTX does not run on a GPU; None if it does, or if the GPU is unknown.

    On an H200 it refuses every engine: "TensorRT-RTX does not support this compute capability".
    """
    if capability is None or capability in RTX_CAPABILITIES:
        return None
    return f"TensorRT-RTX has no kernels for a GPU of compute capability {capability}, only for {', '.join(RTX_CAPABILITIES)}"


def check_rtx(capability: str | None) -> None:
    """Refuse a GPU that TensorRT-RTX does not support.

    Raises:
        MissingError: it is not supported.
    """
    if (reason := rtx_refusal(capability)) is not None:
        raise MissingError(reason, "install TensorRT for this GPU, or pip install onnxruntime-gpu in place of onnxruntime")


def check_capability(backend: str, version: Version, device: Board) -> None:
    """Refuse a GPU that a version has no kernels for.

    Raises:
        InputError: it has none, or the GPU is unknown.
    """
    name, capability = f"{backend} {version[0]}.{version[1]}", device.capability
    sm = f"sm_{capability.replace('.', '')} ({device.title})"
    if backend == "tensorrt-rtx":
        if capability not in RTX_CAPABILITIES:
            way = "use --backend tensorrt" if capability in SUPPORT else f"it supports {', '.join(RTX_CAPABILITIES)}"
            raise InputError(f"{name} does not support {sm}", way)
        return
    support = SUPPORT.get(capability)
    if support is None:
        raise InputError(f"whether {name} supports {sm} is unknown", f"known: {', '.join(SUPPORT)}")
    numbers = version[:2]
    if numbers < support.first:
        raise InputError(f"{name} does not support {sm} yet", f"use TensorRT {support.first[0]}.{support.first[1]} or newer")
    if support.end is not None and numbers >= support.end:
        raise InputError(f"{name} no longer supports {sm}", f"use a TensorRT older than {support.end[0]}.{support.end[1]}")
    if support.gap is not None and support.gap[0] <= numbers <= support.gap[1]:
        raise InputError(f"no build of {name} supports {sm}", f"use {support.gap[2]}")


def check_hardware_precision(device: Board, precision: str) -> None:
    """Refuse a precision in which a GPU does not compute, or is no faster than in fp32.

    Raises:
        InputError: it is such a precision.
    """
    if device.capability in WITHOUT.get(precision, ()):
        others = [other for other in ("int8", "fp16", "fp32") if device.capability not in WITHOUT.get(other, ())]
        raise InputError(
            f"{device.title} (sm_{device.capability.replace('.', '')}) has no {precision}", f"use --precision {others[0]}"
        )
