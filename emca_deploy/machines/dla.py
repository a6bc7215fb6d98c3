"""What NVIDIA's deep learning accelerator (DLA) supports, by version of TensorRT."""

from emca_deploy.errors import InputError
from emca_deploy.machines.boards import BOARDS, Board, JetPack, numbers_of

__all__ = ["check_dla"]

# NVIDIA's documents: 10.7 was the last 10.x with DLA; the notes of 10.16.1 say Orin's is not supported; 11.0 to 11.3 have none;
# "work-with-dla" of 11.4.1 restores it on AGX Orin with JetPack 7.2.2 or newer, strongly typed.
LAST_WITH_FLAGS = (10, 7)
FIRST_TYPED = (11, 4)
TYPED_BOARDS = ("agx-orin",)
TYPED_JETPACK = (7, 2, 2)


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
    if version[:2] <= LAST_WITH_FLAGS:
        return
    older = "use TensorRT 10.7 or older (JetPack 6), or leave --dla out"
    if version[:2] < FIRST_TYPED:
        raise InputError(f"TensorRT {version[0]}.{version[1]} has no DLA {precision}: 10.7 was the last before 11.4", older)
    if device.name not in TYPED_BOARDS:
        raise InputError(f"TensorRT {version[0]}.{version[1]} supports the DLA of AGX Orin only, not of {device.title}", older)
    if jetpack is not None and numbers_of(jetpack.version) < TYPED_JETPACK:
        raise InputError(f"TensorRT {version[0]}.{version[1]} needs JetPack 7.2.2 for the DLA, not {jetpack.version}", older)
    if precision == "int8":
        raise InputError(
            f"INT8 on a DLA is not known to work with TensorRT {version[0]}.{version[1]}: it takes neither Q/DQ nor a cache",
            "use --precision fp16, or TensorRT 10.7 or older (JetPack 6)",
        )
