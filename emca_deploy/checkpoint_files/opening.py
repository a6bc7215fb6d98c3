"""Opens a checkpoint file of any kind and lists its tensors by name, without running anything in it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from emca_deploy.checkpoint_files.pickle_values import Stub
from emca_deploy.checkpoint_files.safetensors_file import read_index, read_safetensors
from emca_deploy.checkpoint_files.stored import COPY_AGAIN, StoredTensor
from emca_deploy.checkpoint_files.torch_file import SAVE_AGAIN, read_torch_legacy, read_torch_zip, torch_damage
from emca_deploy.errors import CheckpointError

__all__ = ["CheckpointFile", "list_shards", "open_checkpoint"]

MAX_DEPTH = 40
MAX_NAME = 300
MAX_TENSORS = 50_000

_TRANSPARENT = ("_modules", "_parameters", "_buffers")
"""Attributes of a pickled torch module that are not part of the names in its state dict."""


@dataclass
class CheckpointFile:
    """The content of a checkpoint file.

    Attributes:
        tensors: Tensors by full name: all keys that lead to the tensor, joined by dots ("state_dict.fc.weight").
        containers: Number of characters in a full name that belong to dictionaries around the state dict ("state_dict.").
        keys: Keys of the outermost dictionary.
        inert: Classes of the other objects in the file, which were not loaded.
        arch: Architecture that the file names, or None; it may be wrong.
        metadata: Values next to the tensors: a safetensors file's metadata, or the dictionary `meta` of a file of torch.save.
    """

    path: Path
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    containers: dict[str, int] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    inert: set[str] = field(default_factory=set)
    arch: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def open_checkpoint(path: Path) -> Iterator[CheckpointFile]:
    """List a checkpoint's tensors; their values can be read until the context ends.

    The file's content shows its kind: a file of torch.save (zip or legacy), safetensors, or the index of several such files.

    Raises:
        CheckpointError: the file cannot be read, is damaged or hostile, or has no tensors.
    """
    found = CheckpointFile(path)
    with ExitStack() as open_files:
        _read(path, found, open_files)
        if not found.tensors:
            names = ", ".join(ascii(key)[1:-1][:40] for key in found.keys[:5]) or "nothing"
            raise CheckpointError(f"{path}: has no tensors, only: {names}", SAVE_AGAIN)
        yield found


def list_shards(path: Path) -> list[Path]:
    """Return the files that the index of a sharded checkpoint names; an empty list for any other checkpoint.

    Raises:
        CheckpointError: the file cannot be read, or is a damaged index.
    """
    with ExitStack() as open_files:
        stream, _ = _open(path, open_files)
        return [path.parent / shard for shard in read_index(path, stream)] if _kind(path, stream) == "index" else []


def _read(path: Path, found: CheckpointFile, open_files: ExitStack, of_index: Path | None = None) -> None:
    stream, size = _open(path, open_files)
    kind = _kind(path, stream)
    if kind == "index":
        if of_index is not None:  # two could name each other
            raise CheckpointError(f"{of_index}: its shard {path.name} is another index", COPY_AGAIN)
        _read_shards(path, stream, found, open_files)
    elif kind == "safetensors":
        tensors, metadata = read_safetensors(path, stream, size)
        found.arch = metadata.get("arch") or found.arch
        found.metadata = metadata
        found.keys += tuple(tensors)
        for name, tensor in tensors.items():
            _add(found, name, 0, tensor)
    else:
        with torch_damage(path):
            if kind == "zip":
                tree = read_torch_zip(path, stream, open_files, found.inert)
            else:
                tree = read_torch_legacy(path, stream, size, found.inert)
        _flatten(path, tree, found)


def _open(path: Path, open_files: ExitStack) -> tuple[BinaryIO, int]:
    try:
        if path.is_dir():
            raise CheckpointError(f"{path}: is a folder", _inside(path))
        stream = open_files.enter_context(path.open("rb"))
        return stream, stream.seek(0, 2)
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path}: no such file", "check the path") from exc
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read: {exc.strerror}", "check the path and its permissions") from exc
    except ValueError as exc:  # a NUL in the path
        raise CheckpointError(f"{str(path)!a}: is not a path", "check the path") from exc


def _inside(folder: Path) -> str:
    """Return what to do about a folder, with the name of a checkpoint in it where there is one."""
    endings = (".index.json", ".safetensors", ".pth", ".pt", ".ckpt", ".tar", ".bin")
    names = sorted(name.name for name in folder.iterdir() if name.name.endswith(endings))
    best = min(names, key=lambda name: next(rank for rank, end in enumerate(endings) if name.endswith(end)), default=None)
    return f"name the checkpoint file inside it, such as {folder / best}" if best else "name a checkpoint file"


def _kind(path: Path, stream: BinaryIO) -> str:
    stream.seek(0)
    head = stream.read(512)
    stream.seek(0)
    if not head:
        raise CheckpointError(f"{path}: is empty", COPY_AGAIN)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: is a Git LFS pointer, not the checkpoint itself", "fetch it with `git lfs pull`")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[4:9] == b"\0\0\0\0{":  # after eight bytes of length, whose first may be a pickle's or a space
        return "safetensors"
    if head.startswith(b"\x80"):  # the instruction that every pickle since protocol 2 starts with
        return "legacy"
    if head.lstrip().startswith(b"{"):
        return "index"
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    if head[257:262] == b"ustar":
        raise CheckpointError(
            f"{path}: is a tar archive; PyTorch's tar format from before 2017 is not supported",
            "unpack it and name the checkpoint in it, or save it again with a newer PyTorch",
        )
    raise CheckpointError(f"{path}: is neither a PyTorch nor a safetensors checkpoint", "give a .pth, .pt or .safetensors file")


def _read_shards(path: Path, stream: BinaryIO, found: CheckpointFile, open_files: ExitStack) -> None:
    for shard, names in read_index(path, stream).items():
        place = path.parent / shard  # not next to a link's target: in Hugging Face's cache these have other names
        part = CheckpointFile(place)
        if not place.exists():
            raise CheckpointError(
                f"{path}: its shard {shard} is missing",
                f"put {shard} into the same folder, or download the whole checkpoint again",
            )
        _read(place, part, open_files, of_index=path)
        missing = [name for name in names if name not in part.tensors]
        if missing:
            raise CheckpointError(
                f"{place}: has no tensor '{ascii(missing[0])[1:-1][:80]}', which {path.name} lists for it", COPY_AGAIN
            )
        found.inert |= part.inert
        found.arch = found.arch or part.arch
        found.metadata = found.metadata or part.metadata
        for name in names:
            _add(found, name, 0, part.tensors[name])


def _add(found: CheckpointFile, name: str, container: int, tensor: StoredTensor) -> None:
    if len(found.tensors) >= MAX_TENSORS:
        raise CheckpointError(f"{found.path}: has more than {MAX_TENSORS:,} tensors", SAVE_AGAIN)
    if name not in found.tensors and len(name) <= MAX_NAME:
        found.tensors[name] = tensor
        found.containers[name] = container


def _flatten(path: Path, tree: Any, found: CheckpointFile) -> None:
    """List the tensors in a tree of dictionaries, lists and stubs, which may contain itself."""
    if isinstance(tree, dict):
        found.keys = tuple(tree)
        arch = tree.get("arch")
        found.arch = arch if isinstance(arch, str) else None
        meta = tree.get("meta")
        found.metadata = meta if isinstance(meta, dict) else {}
    elif not isinstance(tree, Stub):
        kind = "tensor" if isinstance(tree, StoredTensor) else type(tree).__name__
        raise CheckpointError(f"{path}: holds a {kind}, not a dictionary of tensors", SAVE_AGAIN)
    seen: set[int] = set()
    # (value, its full name, length of the containers in the name where it is known, depth)
    waiting: list[tuple[Any, str, int | None, int]] = [(tree, "", None, 0)]
    while waiting:
        value, name, container, depth = waiting.pop()
        if isinstance(value, StoredTensor):
            _add(found, name, container or 0, value)
        elif id(value) not in seen and depth <= MAX_DEPTH and len(name) <= MAX_NAME:
            seen.add(id(value))
            waiting += reversed([(*child, depth + 1) for child in _children(value, name, container, seen)])


def _children(value: Any, name: str, container: int | None, seen: set[int]) -> Iterator[tuple[Any, str, int | None]]:
    """Yield what may hold tensors inside `value`, with its full name and the length of the containers in the name."""
    front = f"{name}." if name else ""
    settled = container
    if isinstance(value, Stub):
        # A stub may be a whole module: the names of its state dict begin here.
        settled = len(front) if container is None else container
        # A crafted pickle can give one long dictionary to many objects: it is read once.
        states = {id(state): state for state in value.state if id(state) not in seen}
        seen.update(states)
        parts: list[Any] = [value.items, *states.values(), value.values]
    else:
        parts = [value]
    for part in parts:
        pairs = part.items() if isinstance(part, dict) else enumerate(part)
        for key, child in pairs:
            if isinstance(child, StoredTensor):  # its own key may contain dots; all above it is containers
                yield child, f"{front}{key}", len(front) if settled is None else settled
            elif isinstance(child, dict | list | tuple | Stub):
                inside = isinstance(value, Stub) and key in _TRANSPARENT
                yield child, name if inside else f"{front}{key}", settled
