"""The encoding of an ONNX file without its graph: whether it is whole and ONNX, and the names of its types."""

from pathlib import Path
from typing import BinaryIO

from emca_deploy.errors import ModelError

__all__ = ["REMEDY", "check_onnx_file", "dtype_name"]

GRAPH_FIELD = 7
LAST_MODEL_FIELD = 26  # ModelProto's highest field number is 26 (configuration)
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
REMEDY = "export or copy the model again"


def check_onnx_file(path: Path) -> None:
    """Read the outermost protobuf fields, to refuse a damaged file with the reason before a runtime reads it.

    The runtimes' own errors are vague or pages long, and one of them accepts an empty file as a model.

    Raises:
        ModelError: the file cannot be read, or is empty, truncated, or not ONNX.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            fields = _outer_fields(stream, size)
    except FileNotFoundError as exc:
        raise ModelError(f"{path}: no such file", "check the path") from exc
    except IsADirectoryError as exc:
        raise ModelError(f"{path}: is a folder", "name an .onnx file") from exc
    except OSError as exc:
        raise ModelError(f"{path}: cannot be read: {exc.strerror}", "check the path and its permissions") from exc
    if size == 0:
        raise ModelError(f"{path}: is empty", REMEDY)
    if fields is None:
        raise ModelError(f"{path}: is not an ONNX file, or is truncated", REMEDY)
    if GRAPH_FIELD not in fields:
        raise ModelError(f"{path}: is not an ONNX file, or holds no graph", REMEDY)


def _outer_fields(stream: BinaryIO, size: int) -> set[int] | None:
    """Return the field numbers, or None where the bytes are not whole fields up to the end."""
    fields: set[int] = set()
    while stream.tell() < size:
        tag = _varint(stream)
        if tag is None or not 1 <= tag >> 3 <= LAST_MODEL_FIELD:
            return None
        kind = tag & 7
        length = _varint(stream) if kind in (VARINT, BYTES) else {FIXED64: 8, FIXED32: 4}.get(kind)
        if length is None:
            return None
        if kind != VARINT:
            if stream.tell() + length > size:
                return None
            stream.seek(length, 1)
        fields.add(tag >> 3)
    return fields


def _varint(stream: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def dtype_name(elem_type: int) -> str:
    """Return the name of ONNX's number of a type: numpy's, such as "float32", or ONNX's where numpy has none."""
    import onnx

    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type).name)
    except KeyError:
        return str(onnx.TensorProto.DataType.Name(elem_type)).lower()
