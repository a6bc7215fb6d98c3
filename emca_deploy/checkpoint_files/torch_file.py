"""Files of torch.save, in the zip format and in the one before PyTorch 1.6, as a tree of values with tensors not yet read."""

import struct
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from emca_deploy.checkpoint_files.pickle_values import Global, HostilePickleError, PickleError, TruncatedPickleError, View
from emca_deploy.checkpoint_files.pickled import Budget, read_pickle
from emca_deploy.checkpoint_files.stored import COPY_AGAIN, ITEM_BYTES, Storage, span_reader
from emca_deploy.errors import CheckpointError

__all__ = ["SAVE_AGAIN", "read_torch_legacy", "read_torch_zip", "torch_damage"]

SAVE_AGAIN = "where it was trained, save the weights alone: torch.save(model.state_dict(), 'weights.pth')"

MAX_DIRECTORY_BYTES = 16 << 20
MAX_PICKLE_BYTES = 256 << 20
MAX_PACKED_BYTES = 1 << 30
MAX_PICKLE_RATIO = 200
MAX_RATIO = 1100  # deflate packs zeros 1,032 times
ENCRYPTED = 0x1
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "UntypedStorage": "uint8", "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
}  # fmt: skip


def read_torch_zip(path: Path, stream: BinaryIO, open_files: ExitStack, inert: set[str]) -> Any:
    """Return the tree of values of a zip file of torch.save; see `read_pickle`.

    Tensors can be read until `open_files` closes the file. The names of classes that became stubs are added to `inert`.

    Raises:
        CheckpointError: the file is of another kind, damaged, or unpacks to more than a checkpoint has.
        PickleError: its pickle is damaged or hostile.
    """
    try:
        _check_directory(path, stream)
        archive = open_files.enter_context(zipfile.ZipFile(stream))
        members = {member.filename: member for member in archive.infolist()}
    except CheckpointError:
        raise
    except Exception as exc:  # zipfile raises half a dozen classes; the table of contents is at the end
        raise CheckpointError(
            f"{path}: is truncated or damaged: the zip archive's table of contents is missing", COPY_AGAIN
        ) from exc
    root = _root(path, members)
    if f"{root}constants.pkl" in members and f"{root}data/0" not in members:
        raise CheckpointError(f"{path}: is a frozen TorchScript program, whose weights have no names", SAVE_AGAIN)
    return _tree_of_zip(path, archive, members, root, inert)


def _check_directory(path: Path, stream: BinaryIO) -> None:
    """Refuse an archive whose table of contents is too large to read."""
    end = zipfile._EndRecData(stream)  # type: ignore[attr-defined]  # zipfile has no public way to know before reading it
    if end and end[5] > MAX_DIRECTORY_BYTES:
        raise CheckpointError(f"{path}: lists more files than a checkpoint has", SAVE_AGAIN)


def _root(path: Path, members: dict[str, zipfile.ZipInfo]) -> str:
    """Return the folder in the archive, with a slash, that has the pickle."""
    names = {name.rpartition("/")[2] for name in members}
    if {"archive_format", "serialized_exported_program.json"} & names:
        remedy = "export it to ONNX (torch.onnx.export of torch.export.load(...)), and use the .onnx file"
        raise CheckpointError(f"{path}: is a program of torch.export, not a checkpoint", remedy)
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if not pickles:
        raise CheckpointError(f"{path}: is a zip archive, but not a checkpoint", "give a .pth, .pt or .safetensors file")
    return min(pickles, key=len).removesuffix("data.pkl")


def _tree_of_zip(path: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], root: str, inert: set[str]) -> Any:
    order = members.get(f"{root}byteorder")
    if order is not None and _unpack(path, archive, order, 16) not in (b"little", b""):
        raise CheckpointError(f"{path}: was saved on a big-endian machine, which is not supported", SAVE_AGAIN)
    storages: dict[str, Storage] = {}

    def storage(key: tuple[Any, ...]) -> View:
        kind, number = _storage_id(key)
        if number not in storages:
            member = members.get(f"{root}data/{number}")
            size = member.file_size if member else 0
            storages[number] = Storage(number, size, partial(_unpack, path, archive, member, size) if member else None)
        return View(kind, storages[number])

    content = _unpack(path, archive, members[f"{root}data.pkl"], MAX_PICKLE_BYTES)
    return read_pickle(BytesIO(content), len(content), Budget(inert=inert), storage)


def _storage_id(key: tuple[Any, ...]) -> tuple[str, str]:
    """Return dtype and number of a storage from its persistent id ("storage", class, number, device, elements, ...)."""
    kind, number = key[1], key[2]
    if key[0] not in ("storage", b"storage") or not isinstance(kind, Global) or not isinstance(number, str | int):
        raise PickleError("its pickle refers to something that is not a tensor")
    return _STORAGES.get(kind.name.rpartition(".")[2], kind.name), str(number)


def _unpack(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int, start: int = 0, stop: int | None = None
) -> bytes:
    """Return a member's content, or a part of it, after a check of its sizes."""
    ratio = member.file_size / max(member.compress_size, 1)
    most_ratio = MAX_PICKLE_RATIO if member.filename.endswith("data.pkl") and member.file_size > 1 << 20 else MAX_RATIO
    packed = member.compress_type != zipfile.ZIP_STORED
    if member.file_size > most or ratio > most_ratio or (packed and member.file_size > MAX_PACKED_BYTES):
        raise CheckpointError(
            f"{path}: '{ascii(member.filename)[1:-1][:80]}' would unpack from {member.compress_size:,} to {member.file_size:,} "
            "bytes, more than a checkpoint has; it was not unpacked",
            "use the file as torch.save wrote it; if that is as large, save the weights alone: torch.save(model.state_dict())",
        )
    if member.flag_bits & ENCRYPTED:
        raise CheckpointError(f"{path}: is encrypted", "unpack it with its password, and pack it again without one")
    if member.CRC == 0:  # torch.save has an option to leave checksums out
        member.CRC = None  # type: ignore[assignment]
    with torch_damage(path), archive.open(member) as stream:
        stream.seek(start)
        content = stream.read((member.file_size if stop is None else stop) - start)
    if stop is not None and len(content) != stop - start:
        raise CheckpointError(f"{path}: is truncated", COPY_AGAIN)
    return content


def read_torch_legacy(path: Path, stream: BinaryIO, size: int, inert: set[str]) -> Any:
    """Return the tree of values of a file that torch.save wrote before PyTorch 1.6: five pickles, then the storages.

    Tensors are read from `stream`, of `size` bytes, later. The names of classes that became stubs are added to `inert`.

    Raises:
        CheckpointError: the file is of another kind or truncated.
        PickleError: a pickle is damaged or hostile.
    """
    budget = Budget(inert=inert)
    if read_pickle(stream, size, budget) != LEGACY_MAGIC:
        raise CheckpointError(f"{path}: is a plain pickle, not a file of torch.save", SAVE_AGAIN)
    if read_pickle(stream, size, budget) != LEGACY_PROTOCOL:
        raise CheckpointError(f"{path}: has an unknown version of PyTorch's old format", SAVE_AGAIN)
    machine = read_pickle(stream, size, budget)
    if not isinstance(machine, dict) or machine.get("little_endian") is False:
        raise CheckpointError(f"{path}: was saved on a big-endian machine, which is not supported", SAVE_AGAIN)
    storages: dict[str, tuple[Storage, int]] = {}
    views: dict[str, Storage] = {}

    def missing(_start: int, _stop: int) -> bytes:
        raise CheckpointError(f"{path}: is damaged: the values of a tensor are missing", COPY_AGAIN)

    def storage(key: tuple[Any, ...]) -> Any:
        if key[0] in ("module", b"module"):  # (class, source file, source) of a whole pickled module
            return key[1]
        dtype, number = _storage_id(key)
        elements, view = key[4], key[5] if len(key) > 5 else None
        width = ITEM_BYTES.get(dtype, 1)
        if number not in storages:
            storages[number] = Storage(number, _whole(elements) * width, missing), width
        whole = storages[number][0]
        return View(dtype, whole if view is None else _part(views, whole, view, width))

    tree = read_pickle(stream, size, budget, storage)
    _find_storages(path, stream, size, read_pickle(stream, size, budget), storages)
    return tree


def _whole(number: Any) -> int:
    if not isinstance(number, int) or number < 0:
        raise PickleError("a size in its pickle is not a number")
    return number


def _part(views: dict[str, Storage], whole: Storage, view: Any, width: int) -> Storage:
    """Return the part of a storage that a view (key, first element, number of elements) describes."""
    key, offset, elements = str(view[0]), _whole(view[1]) * width, _whole(view[2]) * width
    if offset + elements > whole.nbytes:
        raise PickleError("a tensor reaches beyond its storage")
    part = Storage(f"{whole.key}/{key}", elements, lambda a, b: whole.read(offset + a, offset + b) if whole.read else b"")
    return views.setdefault(part.key, part)


def _find_storages(path: Path, stream: BinaryIO, size: int, keys: Any, storages: dict[str, tuple[Storage, int]]) -> None:
    """Give each storage its reader: 8 bytes with the number of elements are in front of its bytes."""
    if not isinstance(keys, list):
        raise PickleError("the list of its tensors is damaged")
    place = stream.tell()
    for key in keys:
        storage, width = storages[str(key)]
        stream.seek(place)
        head = stream.read(8)
        if len(head) == 8 and struct.unpack("<q", head)[0] * width != storage.nbytes:
            raise PickleError("the size of a tensor differs from that of its values")
        storage.read = span_reader(path, stream, place + 8)
        place += 8 + storage.nbytes
        if place > size:
            raise CheckpointError(f"{path}: is truncated", COPY_AGAIN)


@contextmanager
def torch_damage(path: Path) -> Iterator[None]:
    """Turn any exception of zipfile, zlib, lzma or a pickle about a damaged or hostile file into a CheckpointError.

    Raises:
        CheckpointError: the file is damaged or hostile.
    """
    try:
        yield
    except CheckpointError:
        raise
    except HostilePickleError as exc:
        what = f"holds a pickled call of {exc}, which can run code; it was not loaded, and nothing was run"
        raise CheckpointError(
            f"{path}: {what}", "do not load it with another tool; get the checkpoint from its author as safetensors"
        ) from exc
    except PickleError as exc:
        found = "truncated" if isinstance(exc, TruncatedPickleError) else "damaged or not a checkpoint"
        raise CheckpointError(f"{path}: is {found}: {exc}", COPY_AGAIN) from exc
    except Exception as exc:
        lines = str(exc).strip().splitlines()
        reason = ascii(lines[0][:120])[1:-1] if lines else type(exc).__name__
        raise CheckpointError(f"{path}: is damaged: {reason}", COPY_AGAIN) from exc
