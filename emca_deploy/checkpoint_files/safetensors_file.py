"""Safetensors files: a JSON header with the place of each tensor's values, and the index of a sharded checkpoint."""

import json
from pathlib import Path
from typing import Any, BinaryIO

from emca_deploy.checkpoint_files.stored import COPY_AGAIN, ITEM_BYTES, Storage, StoredTensor, describe_tensor, span_reader
from emca_deploy.errors import CheckpointError

__all__ = ["read_index", "read_safetensors"]

MAX_HEADER_BYTES = 16 << 20
MAX_SHARDS = 1000

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32",
    "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_safetensors(path: Path, stream: BinaryIO, size: int) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return the tensors of a safetensors file of `size` bytes and its metadata; values are read from `stream` later.

    Raises:
        CheckpointError: the file is damaged, truncated or not a safetensors file.
    """
    stream.seek(0)
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: is damaged or not a safetensors file: its header would have {length:,} bytes", COPY_AGAIN)
    if 8 + length > size:
        raise CheckpointError(f"{path}: is truncated or damaged: it ends within its header", COPY_AGAIN)
    header = _json(path, stream.read(length))
    metadata = header.pop("__metadata__", None)
    try:
        tensors = {name: _tensor(path, stream, size - 8 - length, 8 + length, entry) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise CheckpointError(f"{path}: is damaged: its header describes an impossible tensor", COPY_AGAIN) from exc
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return tensors, {key: value for key, value in texts if isinstance(value, str)}


def _json(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path}: is damaged: its header is not JSON", COPY_AGAIN) from exc
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: is damaged: its header is not a JSON object", COPY_AGAIN)
    return value


def _tensor(path: Path, stream: BinaryIO, room: int, base: int, entry: dict[str, Any]) -> StoredTensor:
    kind = entry["dtype"]
    begin, end = entry["data_offsets"]
    if not all(isinstance(place, int) for place in (begin, end)) or not 0 <= begin <= end:
        raise ValueError("impossible offsets")
    if end > room:
        raise CheckpointError(f"{path}: is truncated or damaged: it ends before its last tensor", COPY_AGAIN)
    dtype = _DTYPES.get(kind, str(kind)[:20])
    storage = Storage(f"{base + begin}", end - begin, span_reader(path, stream, base + begin))
    tensor = describe_tensor(dtype, storage, entry["shape"])
    if not tensor.problem and tensor.span * ITEM_BYTES[dtype] != end - begin:
        raise ValueError("a shape that does not fit the bytes")
    return tensor


def read_index(path: Path, stream: BinaryIO) -> dict[str, list[str]]:
    """Return the tensors' names by shard from an index such as model.safetensors.index.json.

    Raises:
        CheckpointError: it is not an index, or names a shard outside its own folder.
    """
    stream.seek(0)
    content = stream.read(MAX_HEADER_BYTES + 1)
    if len(content) > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: is larger than any index of shards", "name the index.json of the checkpoint")
    index = _json(path, content).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise CheckpointError(
            f'{path}: is JSON, but not an index of shards: it has no "weight_map"',
            "name the .safetensors file, or its index.json",
        )
    shards: dict[str, list[str]] = {}
    for name, shard in index.items():
        if not isinstance(shard, str) or not shard or shard != Path(shard).name or shard in (".", ".."):
            raise CheckpointError(f"{path}: names a shard that is not a file of its own folder: {ascii(shard)[:80]}", COPY_AGAIN)
        shards.setdefault(shard, []).append(name)
    if len(shards) > MAX_SHARDS:
        raise CheckpointError(f"{path}: names more than {MAX_SHARDS} shards", COPY_AGAIN)
    return shards
