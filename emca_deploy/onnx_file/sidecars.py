"""External data of an ONNX file: tensors whose bytes are in other files next to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.header import REMEDY

if TYPE_CHECKING:
    import onnx

__all__ = ["Sidecar", "external_tensors", "find_sidecars", "load_tensor"]


@dataclass(frozen=True)
class Sidecar:
    """A file with tensors of a model.

    Attributes:
        location: Relative path in the model.
        path: The file; symbolic links are followed when it is opened.
    """

    location: str
    path: Path


def all_tensors(graph: "onnx.GraphProto") -> "Iterator[onnx.TensorProto]":
    """Yield every tensor of a graph: initializers, attributes, and those of its subgraphs."""
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: "onnx.NodeProto") -> "Iterator[onnx.TensorProto]":
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from all_tensors(attribute.g)
        for graph in attribute.graphs:
            yield from all_tensors(graph)


def external_tensors(model: "onnx.ModelProto") -> "list[onnx.TensorProto]":
    """Return the tensors of a model whose bytes are in another file."""
    found = [tensor for tensor in all_tensors(model.graph) if tensor.data_location == tensor.EXTERNAL]
    for function in model.functions:
        found += [t for node in function.node for t in _node_tensors(node) if t.data_location == t.EXTERNAL]
    return found


def find_sidecars(path: Path, model: "onnx.ModelProto") -> tuple[Sidecar, ...]:
    """Return the files with external data, all of which exist and are long enough.

    A model in Hugging Face's cache is a link; its sidecar is next to the link or next to the link's target.

    Raises:
        ModelError: a location is outside the model's folder, or its file is missing or cut short.
    """
    ends: dict[str, int] = {}
    for tensor in external_tensors(model):
        location, offset, length = _place(path, tensor)
        ends[location] = max(ends.get(location, 0), offset + (length or 0))
    found = []
    for location, end in sorted(ends.items()):
        place = _resolve(path, location)
        size = place.stat().st_size
        if size < end:
            raise ModelError(
                f"{place}: is cut short: it has {size} bytes, and the weights of {path} reach to byte {end}",
                f"copy {place.name} again, whole",
            )
        found.append(Sidecar(location, place))
    return tuple(found)


def _place(path: Path, tensor: "onnx.TensorProto") -> tuple[str, int, int | None]:
    """Return the location, offset and length in bytes that a tensor's external data names."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location or "\0" in location or Path(location).is_absolute() or ".." in Path(location).parts:
        raise ModelError(f"{path}: its weights are in '{location}', outside its folder", "save them next to the model")
    try:
        offset = int(entries.get("offset", "0") or 0)
        length = int(entries["length"]) if "length" in entries else None
    except ValueError as exc:
        raise ModelError(f"{path}: the offset or length of tensor '{tensor.name}' is not a number", REMEDY) from exc
    if offset < 0 or (length is not None and length < 0):
        raise ModelError(f"{path}: the offset or length of tensor '{tensor.name}' is negative", REMEDY)
    return location, offset, length


def _resolve(path: Path, location: str) -> Path:
    for folder in dict.fromkeys((path.parent, path.resolve().parent)):
        place = folder / location
        try:
            if place.is_file():
                return place
        except OSError:  # a name too long for the file system, for example
            continue
    raise ModelError(
        f"{path}: its weights are in {location}, which is missing", f"copy {location} into {path.parent}, next to the model"
    )


def load_tensor(path: Path, tensor: "onnx.TensorProto") -> None:
    """Read the bytes of an external tensor into it.

    Raises:
        ModelError: the bytes cannot be read, or are fewer than its shape needs.
    """
    import onnx

    location, offset, length = _place(path, tensor)
    place = _resolve(path, location)
    try:
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        wanted = prod(tensor.dims) * itemsize if length is None else length
        with place.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(wanted)
    except (OSError, OverflowError, ValueError, KeyError, TypeError) as exc:
        raise ModelError(f"{place}: cannot be read: {exc}", f"copy {place.name} again, whole") from exc
    if len(data) < wanted:
        raise ModelError(f"{place}: is cut short at tensor '{tensor.name}' of {path}", f"copy {place.name} again, whole")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT
    tensor.raw_data = data
