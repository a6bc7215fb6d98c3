"""What NVIDIA's deep learning accelerator takes, by version of TensorRT."""

from emca_deploy.errors import InputError
from emca_deploy.machines.boards import BOARDS, Board, JetPack, numbers_of

__all__ = ["check_dla"]

# NVIDIA's documents: 10.7 was the last 10.x with DLA, the notes of 10.16.1 say Orin's is not supported, none in 11.0 to 11.3;
# "work-with-dla" of 11.4.1 restores it on AGX Orin with JetPack 7.2.2 or newer, strongly typed.
LAST_WITH_FLAGS = (10, 7)
FIRST_TYPED = (11, 4)
TYPED_BOARDS = ("agx-orin",)
TYPED_JETPACK = (7, 2, 2)


def check_dla(version: tuple[int, int, int], device: Board, jetpack: JetPack | None, precision: str) -> None:
    """Refuse what no DLA does.

    Raises:
        InputError: the device has none, TensorRT does not support it, or it does not compute in that precision.
    """
    with_dla = ", ".join(board.name for board in BOARDS.values() if board.dla)
    if device.dla is None:
        raise InputError(f"--dla: whether a GPU of compute capability {device.capability} has a DLA beside it, "
                         "its board decides", f"name the board: {with_dla}")  # fmt: skip
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
            f"how TensorRT {version[0]}.{version[1]} takes INT8 for a DLA is not known: no Q/DQ so far, and no cache from 11 on",
            "use --precision fp16, or TensorRT 10.7 or older (JetPack 6)",
        )
