"""Writes the forward pass of a torch module as an ONNX graph, one node for each call on a tensor that depends on the images.

The module runs once on a tensor without data. Calls on weights alone are computed at once, which folds them to constants.
torch.onnx.export makes the same graph of our networks in twenty times the time. PyTorch's own shapes of tensors without data
are not used here either, because they load its compiler, which takes longer than all of the export.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from emca_deploy.errors import ModelError
from emca_deploy.exporting.naming import LAYER, MODULE

__all__ = ["trace"]

IR_VERSION = 10
DYNAMIC_SIZE = 7919
"""Number that stands for a dynamic batch: a prime that is no other size of a network."""

Operand = Tensor | float | list[int]
Pair = int | Sequence[int]


def trace(module: nn.Module, sides: tuple[int, int], batch: int | None, opset: int, names: tuple[str, str]) -> ir.Model:
    """Return the ONNX model of a module in eval mode; `names` are those of its input and output.

    Raises:
        ModelError: the module calls a function that is not written here, or the images are too small for it.
    """
    recorder = _Recorder(module, batch)
    images = recorder.traced([batch or DYNAMIC_SIZE, 3, *sides], ir.Value(name=names[0]))
    with torch.no_grad(), recorder.following(module):
        logits: _Traced = module(images)
    logits.value.name = names[1]
    constants = [value for _, value in recorder.constants.values()]
    graph = ir.Graph(
        [images.value], [logits.value], nodes=recorder.nodes, initializers=constants, opset_imports={"": opset}, name="main_graph"
    )
    return ir.Model(graph, ir_version=IR_VERSION)


class _Traced(Tensor):
    """A tensor of the graph: it has a shape and no data, and calls on it are written as nodes."""

    recorder: "_Recorder"
    value: ir.Value

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            name = func.__name__.strip("_")
            if name in _QUERIES:
                return func(*args, **kwargs or {})
            if name not in _WRITTEN:
                raise ModelError(f"the exporter cannot write torch's {name}", "report this with the architecture")
            return _WRITTEN[name](next(_traced(args)).recorder, *args, **kwargs or {})


def _traced(argument: Any) -> Iterator[_Traced]:
    if isinstance(argument, _Traced):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for each in argument:
            yield from _traced(each)


class _Recorder:
    """The graph while it is written."""

    def __init__(self, module: nn.Module, batch: int | None) -> None:
        self.batch = batch
        self.nodes: list[ir.Node] = []
        self.constants: dict[int, tuple[Operand, ir.Value]] = {}
        self.path = [""]
        self._layers = {
            id(value): name.removesuffix(".weight") for name, value in module.named_parameters() if name.endswith(".weight")
        }

    def traced(self, shape: Sequence[int], value: ir.Value) -> _Traced:
        """Return a tensor that stands for a float32 value, which gets its shape."""
        size = self.batch or DYNAMIC_SIZE
        if min(shape) < 1:
            raise ModelError("the images are too small for this network", "give a larger --image-size")
        value.shape = ir.Shape(["batch" if self.batch is None and n == size else n for n in shape])
        value.type = ir.TensorType(ir.DataType.FLOAT)
        result = torch.empty(tuple(shape), device="meta").as_subclass(_Traced)
        result.recorder, result.value = self, value
        return result

    def node(self, op_type: str, shape: Sequence[int], operands: Sequence[Operand | None], **attributes: Any) -> _Traced:
        """Write a node; return its output, which has this shape."""
        values = [None if each is None else self._value(each) for each in operands]
        while values[-1] is None:
            values.pop()
        made = ir.node(op_type, values, attributes, name=f"node:{len(self.nodes)}")
        made.metadata_props[MODULE] = self.path[-1]
        if len(operands) > 1 and (layer := self._layers.get(id(operands[1]))):
            made.metadata_props[LAYER] = layer
        made.outputs[0].name = made.name
        self.nodes.append(made)
        return self.traced(shape, made.outputs[0])

    def _value(self, given: Operand) -> ir.Value:
        """Return the value of a traced tensor, or a constant: a tensor, a float32 number or a list of int64."""
        if isinstance(given, _Traced):
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


Written = Callable[..., _Traced]


def _elementwise(op_type: str) -> Written:
    def write(recorder: _Recorder, *operands: Tensor | float, **_: Any) -> _Traced:
        shapes = [each.shape for each in operands if isinstance(each, Tensor)]
        return recorder.node(op_type, np.broadcast_shapes(*shapes), operands)

    return write


def _mul(recorder: _Recorder, x: Tensor | float, factor: Tensor | float) -> _Traced:
    if isinstance(x, _Traced) and isinstance(factor, (int, float)) and factor == 1:
        return x
    return _elementwise("Mul")(recorder, x, factor)


def _reduction(op_type: str) -> Written:
    def write(recorder: _Recorder, x: Tensor, dim: Pair, keepdim: bool = False) -> _Traced:
        axes = [dim] if isinstance(dim, int) else list(dim)
        reduced = {axis % x.dim() for axis in axes}
        shape = [1 if axis in reduced else size for axis, size in enumerate(x.shape) if keepdim or axis not in reduced]
        return recorder.node(op_type, shape, [x, axes], noop_with_empty_axes=0, keepdims=int(keepdim))

    return write


def _pair(number: Pair) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else (number[0], number[1])


def _windows(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> dict[str, Any]:
    return {
        "auto_pad": "NOTSET", "dilations": _pair(dilation), "kernel_shape": _pair(kernel), "pads": _pair(padding) * 2,
        "strides": _pair(stride),
    }  # fmt: skip


def _moved(x: Tensor, windows: dict[str, Any], ceil_mode: bool = False) -> list[int]:
    """Return height and width of what windows over a map give.

    Source: PyTorch's documentation of Conv2d and MaxPool2d. With `ceil_mode`, a last window must begin inside the map or its
    padding before it.
    """
    sizes = []
    for axis, size in enumerate(x.shape[2:]):
        kernel, stride, padding = (windows[key][axis] for key in ("kernel_shape", "strides", "pads"))
        room = size + 2 * padding - windows["dilations"][axis] * (kernel - 1) - 1
        count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
        sizes.append(count - (ceil_mode and (count - 1) * stride >= size + padding))
    return sizes


def _conv2d(
    recorder: _Recorder, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0,
    dilation: Pair = 1, groups: int = 1,
) -> _Traced:  # fmt: skip
    windows = _windows(x, tuple(weight.shape[2:]), stride, padding, dilation)
    shape = [x.shape[0], weight.shape[0], *_moved(x, windows)]
    return recorder.node("Conv", shape, [x, weight, bias], group=groups, **windows)


def _max_pool2d(
    recorder: _Recorder, x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> _Traced:  # fmt: skip
    windows = _windows(x, kernel_size, stride or kernel_size, padding, dilation)
    shape = [*x.shape[:2], *_moved(x, windows, ceil_mode)]
    return recorder.node("MaxPool", shape, [x], ceil_mode=int(ceil_mode), storage_order=0, **windows)


def _batch_norm(
    recorder: _Recorder, x: _Traced, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float, **_: Any
) -> _Traced:  # fmt: skip
    layer = x.value.producer()
    if layer is not None and layer.op_type == "Conv":  # batch norm folds into it, and so it has batch norm's name
        layer.metadata_props[MODULE] = recorder.path[-1]
    return recorder.node("BatchNormalization", x.shape, [x, weight, bias, mean, variance], epsilon=eps)


def _linear(recorder: _Recorder, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> _Traced:
    shape = [x.shape[0], weight.shape[0]]
    return recorder.node("Gemm", shape, [x, weight, bias], alpha=1.0, beta=1.0, transA=0, transB=1)


def _cat(recorder: _Recorder, tensors: Sequence[_Traced], dim: int = 0) -> _Traced:
    if len(tensors) == 1:
        return tensors[0]
    axis = dim % tensors[0].dim()
    shape = list(tensors[0].shape)
    shape[axis] = sum(each.shape[axis] for each in tensors)
    return recorder.node("Concat", shape, tensors, axis=axis)


def _reshape(recorder: _Recorder, x: Tensor, *given: Any) -> _Traced:
    shape = list(given[0] if isinstance(given[0], Sequence) else given)
    known = -int(np.prod(shape))
    return recorder.node("Reshape", [x.numel() // known if n < 0 else n for n in shape], [x, shape], allowzero=1)


def _flatten(recorder: _Recorder, x: Tensor, start_dim: int) -> _Traced:
    return _reshape(recorder, x, recorder.batch or -1, *x.shape[1:start_dim], x.shape[start_dim:].numel())


_QUERIES = frozenset({"get", "dim", "size", "numel"})
"""Functions and, as `get`, attributes of a tensor that give no tensor."""

_WRITTEN: dict[str, Written] = {
    "add": _elementwise("Add"), "sub": _elementwise("Sub"), "mul": _mul, "div": _elementwise("Div"),
    "relu": _elementwise("Relu"), "sigmoid": _elementwise("Sigmoid"), "sqrt": _elementwise("Sqrt"),
    "mean": _reduction("ReduceMean"), "sum": _reduction("ReduceSum"), "batch_norm": _batch_norm, "cat": _cat, "conv2d": _conv2d,
    "flatten": _flatten, "linear": _linear, "max_pool2d": _max_pool2d, "reshape": _reshape,
}  # fmt: skip
"""Functions of torch that the networks call."""
