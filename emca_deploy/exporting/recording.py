"""A tensor without data, and the graph that calls on it are written into."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from emca_deploy.errors import ModelError
from emca_deploy.exporting.naming import LAYER, MODULE

__all__ = ["DYNAMIC_SIZE", "TYPES", "Operand", "Recorder", "Traced", "Written"]

DYNAMIC_SIZE = 7919
"""Number that stands for a dynamic batch: a prime that is no other size of a network."""

Operand = Tensor | float | list[int]
Written = Callable[..., Any]
"""A function that writes the nodes of one torch function: it gets the recorder and then that function's arguments."""

TYPES = {
    torch.float32: ir.DataType.FLOAT, torch.int64: ir.DataType.INT64, torch.int32: ir.DataType.INT32,
    torch.bool: ir.DataType.BOOL,
}  # fmt: skip


_QUERIES = frozenset({"dim", "size", "numel", "len", "is_floating_point"})
"""Functions of a tensor that give no tensor."""

_ATTRIBUTES = frozenset({"shape", "dtype", "ndim", "requires_grad", "is_cuda"})
"""Attributes of a tensor that are no tensors."""


class Traced(Tensor):
    """A tensor of the graph: it has a shape and no data, and calls on it are written as nodes."""

    recorder: "Recorder"
    value: ir.Value

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            name = func.__name__.strip("_")
            if name == "get":  # an attribute: the function belongs to its descriptor
                name = func.__self__.__name__  # type: ignore[attr-defined]
                if name == "device":
                    return torch.device("cpu")  # where constants are made
            if name in _QUERIES or name in _ATTRIBUTES:
                return func(*args, **kwargs or {})
            recorder = next(_traced((*args, *(kwargs or {}).values()))).recorder
            if name not in recorder.written:
                raise ModelError(f"the exporter cannot write torch's {name}", "report this with the architecture")
            return recorder.written[name](recorder, *args, **kwargs or {})


def _traced(argument: Any) -> Iterator[Traced]:
    if isinstance(argument, Traced):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for each in argument:
            yield from _traced(each)


class Recorder:
    """The graph while it is written."""

    def __init__(self, module: nn.Module, batch: int | None, opset: int, written: Mapping[str, Written]) -> None:
        self.batch = batch
        self.opset = opset
        self.written = written
        self.nodes: list[ir.Node] = []
        self.constants: dict[int, tuple[Operand, ir.Value]] = {}
        self.path = [""]
        weights = {name.removesuffix(".weight"): each for name, each in module.named_parameters() if name.endswith(".weight")}
        self._layers = {id(weight): name for name, weight in weights.items()}
        self._sizes = {name: weight.numel() for name, weight in weights.items()}

    def traced(self, shape: Sequence[int], value: ir.Value, dtype: torch.dtype = torch.float32) -> Traced:
        """Return a tensor that stands for a value, which gets its shape and type."""
        size = self.batch or DYNAMIC_SIZE
        if min(shape, default=1) < 1:
            raise ModelError("the images are too small for this network", "give a larger --image-size")
        value.shape = ir.Shape(["batch" if self.batch is None and n == size else n for n in shape])
        value.type = ir.TensorType(TYPES[dtype])
        result = torch.empty(tuple(shape), device="meta", dtype=dtype).as_subclass(Traced)
        result.recorder, result.value = self, value
        return result

    def node(
        self, op_type: str, shape: Sequence[int], operands: Sequence[Operand | None], dtype: torch.dtype = torch.float32,
        **attributes: Any,
    ) -> Traced:  # fmt: skip
        """Write a node; return its output, which has this shape and type."""
        return self.write(op_type, [(shape, dtype)], operands, attributes)[0]

    def write(
        self,
        op_type: str,
        outputs: Sequence[tuple[Sequence[int], torch.dtype]],
        operands: Sequence[Operand | None],
        attributes: dict[str, Any],
    ) -> list[Traced]:
        """Write a node; return its outputs, which have these shapes and types."""
        values = [None if each is None else self._value(each) for each in operands]
        while values[-1] is None:
            values.pop()
        made = ir.node(op_type, values, attributes, num_outputs=len(outputs), name=f"node:{len(self.nodes)}")
        made.metadata_props[MODULE] = self.path[-1]
        if len(operands) > 1 and (layer := self._layer(operands[1])):
            made.metadata_props[LAYER] = layer
        for index, value in enumerate(made.outputs):
            value.name = f"{made.name}:{index}" if index else made.name
        self.nodes.append(made)
        return [self.traced(shape, value, dtype) for (shape, dtype), value in zip(outputs, made.outputs, strict=True)]

    def _layer(self, weight: Operand | None) -> str | None:
        """Return the path of the module whose weights these are, in any order; None for other operands."""
        path = self.path[-1]
        own = isinstance(weight, Tensor) and not isinstance(weight, Traced) and self._sizes.get(path) == weight.numel()
        return self._layers.get(id(weight)) or (path if own else None)

    def _value(self, given: Operand) -> ir.Value:
        """Return the value of a traced tensor, or a constant: a tensor, a float32 number or a list of int64."""
        if isinstance(given, Traced):
            return given.value
        if id(given) in self.constants:
            return self.constants[id(given)][1]
        if isinstance(given, Tensor):
            array = given.detach().contiguous().numpy()
        else:
            array = np.array(given, np.int64 if isinstance(given, list) else np.float32)
        name = f"constant:{len(self.constants)}"
        constant = ir.Value(name=name, const_value=ir.Tensor(array, name=name), shape=ir.Shape(array.shape))
        constant.dtype = ir.DataType.from_numpy(array.dtype)
        self.constants[id(given)] = given, constant  # with `given`, because another object could get the id of a dead one
        return constant

    @contextmanager
    def following(self, module: nn.Module) -> Iterator[None]:
        """Keep the path of the module that runs."""

        def enter(name: str) -> Callable[..., None]:
            return lambda *_: self.path.append(name)

        def leave(*_: Any) -> None:
            self.path.pop()

        hooks = []
        for name, each in module.named_modules():
            hooks += [each.register_forward_pre_hook(enter(name)), each.register_forward_hook(leave)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
