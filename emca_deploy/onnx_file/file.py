"""An ONNX file that is read once: its model, its input, its logits and its external data."""

import hashlib
from collections import Counter, OrderedDict
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from emca_deploy.artifacts import Precision, sha256_file
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.header import REMEDY, check_onnx_file
from emca_deploy.onnx_file.refusal import graph_errors
from emca_deploy.onnx_file.sidecars import Sidecar, all_tensors, external_tensors, find_sidecars, load_tensor
from emca_deploy.onnx_file.structure import check_structure
from emca_deploy.requests import TaskName
from emca_deploy.tasks.inputs import ImageInput, find_image, pixel_range
from emca_deploy.tasks.outputs import LogitsOutput, classifier_logits, find_logits, task_of
from emca_deploy.unchanged import Stamp, stamp_of

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["OnnxFile"]

SMALL_ELEMENTS = 16
"""A constant of a normalization has one value, or one per channel."""

OPENED_FILES = 4
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")

_opened: "OrderedDict[Path, OnnxFile]" = OrderedDict()


class OnnxFile:
    """One ONNX file.

    Attributes:
        proto: Model, without its external data.
        sidecars: Files with its external data.
    """

    def __init__(self, path: Path) -> None:
        """Read the model and find its external data; `open` does this once per file.

        Raises:
            ModelError: it is not a readable ONNX file, or its external data is missing or cut short.
        """
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        check_onnx_file(path)
        self.path = path
        self._stamps: dict[Path, Stamp] = {path: stamp_of(path)}
        try:
            self.proto = onnx.load(str(path), load_external_data=False, format="protobuf")
        except (DecodeError, OSError) as exc:
            raise ModelError(f"{path}: is not an ONNX file, or is damaged", REMEDY) from exc
        check_structure(path, self.proto)
        self.sidecars: tuple[Sidecar, ...] = find_sidecars(path, self.proto)
        self._stamps |= {sidecar.path: stamp_of(sidecar.path) for sidecar in self.sidecars}

    @classmethod
    def open(cls, path: Path) -> "OnnxFile":
        """Return the file, which is read again only if it or its external data has changed.

        Raises:
            ModelError: it is not a readable ONNX file, or its external data is missing or cut short.
        """
        known = _opened.pop(path.absolute(), None)
        if known is None or known.path != path or not known.is_current():
            known = cls(path)
        _opened[path.absolute()] = known
        while len(_opened) > OPENED_FILES:
            _opened.popitem(last=False)
        return known

    def is_current(self) -> bool:
        """Return whether the file and its external data are unchanged."""
        try:
            return all(stamp_of(path) == stamp for path, stamp in self._stamps.items())
        except OSError:
            return False

    @cached_property
    def sha256(self) -> str:
        """The sha256 in hex of the file, or of the file and every sidecar where it has external data."""
        own = sha256_file(self.path)
        if not self.sidecars:
            return own
        total = hashlib.sha256(own.encode())
        for sidecar in self.sidecars:
            total.update(f"\n{sidecar.location}\0{sha256_file(sidecar.path)}".encode())
        return total.hexdigest()

    @property
    def graph(self) -> "onnx.GraphProto":
        """The graph; external data is not loaded."""
        return self.proto.graph

    @property
    def opset(self) -> int:
        """The model's version of ONNX's own operators; 0 where it has none."""
        return max((entry.version for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)

    def load_proto(self) -> "onnx.ModelProto":
        """Return a copy of the model with its external data in memory.

        Raises:
            ModelError: the external data cannot be read.
        """
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        for tensor in external_tensors(model):
            load_tensor(self.path, tensor)
        return model

    def load(self) -> "ir.Model":
        """Return a fresh graph with its external data in memory.

        Raises:
            ModelError: the graph is damaged, or its external data cannot be read.
        """
        import onnx_ir as ir

        with graph_errors(self.path):
            return ir.from_proto(self.load_proto() if self.sidecars else self.proto)

    @property
    def linked(self) -> bool:
        """Whether the model has external data and is, or its sidecar is, a symbolic link."""
        return bool(self.sidecars) and any(path.is_symlink() for path in self._stamps)

    @cached_property
    def image(self) -> ImageInput:
        """The input that takes images.

        Raises:
            ModelError: the model does not have exactly one input, or it is not a batch of images.
        """
        return find_image(self.path, self.graph)

    @cached_property
    def pixel_range(self) -> float | None:
        """The largest pixel value that a graph expects, 1.0 or 255.0, where it normalizes its input itself; else None."""
        return pixel_range(self.graph, self.image, self._small_constant)

    @property
    def task(self) -> TaskName:
        """The task of the model, by the names of its outputs."""
        return task_of(self.graph)

    def find_logits(self, name: str | None = None) -> LogitsOutput:
        """Return the graph's output with the logits; `name` chooses among several outputs.

        Raises:
            ModelError: the model is a detector, no output can be the logits, or several can and none is named.
            UnknownNameError: there is no output of that name.
        """
        return find_logits(self.path, self.graph, name)

    def classifier_logits(self, name: str | None = None) -> LogitsOutput | None:
        """Return the output with the logits as `find_logits` does, or None for a detector, unless an output is named."""
        return classifier_logits(self.path, self.graph, name)

    @property
    def is_quantized(self) -> bool:
        """Whether any node quantizes, dequantizes or computes in integers."""
        return any(node.op_type in QUANTIZED for node in self.graph.node)

    @cached_property
    def precision(self) -> Precision:
        """The precision, as far as the model shows it: int8 with quantized nodes, else that of most weights."""
        import onnx

        if self.is_quantized:
            return "int8"
        names: dict[int, Precision] = {onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}
        weights = Counter(names.get(tensor.data_type, "fp32") for tensor in all_tensors(self.graph) if len(tensor.dims) > 1)
        return max(weights, key=lambda name: weights[name], default="fp32")

    def _small_constant(self, name: str) -> "npt.NDArray[Any] | None":
        import onnx

        tensors = {tensor.name: tensor for tensor in self.graph.initializer}
        for node in self.graph.node:
            if node.op_type == "Constant" and name in node.output:
                tensors[name] = next((a.t for a in node.attribute if a.name == "value"), onnx.TensorProto())
        tensor = tensors.get(name)
        if tensor is None or prod(tensor.dims) > SMALL_ELEMENTS:
            return None
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        try:
            if copy.data_location == copy.EXTERNAL:
                load_tensor(self.path, copy)
            return onnx.numpy_helper.to_array(copy)
        except (ValueError, TypeError, KeyError):
            return None
