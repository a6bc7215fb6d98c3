"""Rewrites that change an ONNX file and not the function it computes: how other exporters and tools write the same network.

Each takes a model as `networks.to_onnx` makes it and a seeded generator, and returns a new one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Apply = Callable[[onnx.ModelProto, np.random.Generator], onnx.ModelProto]
FAR_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Rewrite:
    """A rewrite, and what it does to the file's input and output.

    Attributes:
        apply: returns the rewritten model.
        pixels: the largest pixel value of what it takes; None where it takes normalised images as the network did.
        sidecar: keep the weights in a file beside the model.
        half: whether weights are rounded to float16, which changes them by more than rounding errors of float32.
    """

    apply: Apply
    pixels: float | None = None
    sidecar: bool = False
    half: bool = False


MEAN = np.array([0.4, 0.5, 0.6], np.float32)
STD = np.array([0.2, 0.25, 0.3], np.float32)

REWRITES: dict[str, Rewrite] = {}


def _rewrite(**facts: Any) -> Callable[[Apply], Apply]:
    def register(apply: Apply) -> Apply:
        REWRITES[apply.__name__] = Rewrite(apply, **facts)
        return apply

    return register


class _Edit:
    """A copy of a model, its nodes and constants open to change."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        self.arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}
        self.nodes = list(self.graph.node)
        self.inner: set[str] = set()  # what branches read

    def constant(self, name: str, array: Any) -> str:
        self.arrays[name] = np.asarray(array)
        return name

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if name in node.input]

    def swap(self, node: onnx.NodeProto, *others: onnx.NodeProto) -> None:
        at = next(i for i, own in enumerate(self.nodes) if own is node)
        self.nodes[at : at + 1] = others

    def done(self) -> onnx.ModelProto:
        """Return the model with its shapes inferred anew, and only the constants that something reads."""
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input} | self.inner
        self.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in self.arrays.items() if name in used)
        return self.model


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _set(node: onnx.NodeProto, **attributes: Any) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del node.attribute[:]
    node.attribute.extend(
        [*kept, *(helper.make_attribute(name, value) for name, value in attributes.items() if value is not None)]
    )


def _of_type(edit: _Edit, *op_types: str) -> list[onnx.NodeProto]:
    return [node for node in edit.nodes if node.op_type in op_types]


@_rewrite()
def nothing(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _Edit(model).done()


@_rewrite()
def shapes_inferred(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model)


@_rewrite()
def names_removed(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Nodes without names, tensors numbered."""
    edit = _Edit(model)
    ends = {value.name for value in (*edit.graph.input, *edit.graph.output)}
    numbers: dict[str, str] = {}

    def renamed(name: str) -> str:
        return name if name in ends or not name else numbers.setdefault(name, f"{len(numbers)}")

    for node in edit.nodes:
        node.name = ""
        inputs, outputs = [renamed(name) for name in node.input], [renamed(name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
    edit.arrays = {renamed(name): array for name, array in edit.arrays.items()}
    return edit.done()


@_rewrite()
def nodes_reordered(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Another order in which the nodes can run."""
    edit = _Edit(model)
    known = {*edit.arrays, *(value.name for value in edit.graph.input)}
    left, ordered = list(edit.nodes), []
    while left:
        ready = [node for node in left if all(name in known for name in node.input if name)]
        node = ready[int(rng.integers(len(ready)))]
        ordered.append(node)
        known.update(node.output)
        left = [other for other in left if other is not node]
    edit.nodes = ordered
    return edit.done()


@_rewrite()
def batch_norm_unfolded(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Each convolution becomes one without bias and a BatchNormalization that folds back into it."""
    edit = _Edit(model)
    for node in _of_type(edit, "Conv"):
        if len(node.input) < 3:
            continue
        weight, bias = edit.arrays[node.input[1]], edit.arrays[node.input[2]]
        mean, variance = (
            (rng.standard_normal(len(bias)) * 0.1).astype(np.float32),
            rng.uniform(0.5, 2, len(bias)).astype(np.float32),
        )
        gamma = rng.uniform(0.5, 2, len(bias)).astype(np.float32)
        factor = gamma / np.sqrt(variance + np.float32(1e-5))
        name, raw = node.output[0], f"{node.output[0]}/raw"
        parts = {"gamma": gamma, "beta": bias + mean * factor, "mean": mean, "variance": variance}
        inputs = [edit.constant(f"{name}/{part}", array) for part, array in parts.items()]
        own = edit.constant(f"{name}/weight", weight / factor.reshape(-1, 1, 1, 1))
        conv = helper.make_node("Conv", [node.input[0], own], [raw], node.name, **_attributes(node))
        edit.swap(node, conv, helper.make_node("BatchNormalization", [raw, *inputs], [name], f"{node.name}.bn", epsilon=1e-5))
    return edit.done()


@_rewrite()
def weights_in_constants(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))
        for name, array in edit.arrays.items()
    ]
    edit.nodes = [*constants, *edit.nodes]
    edit.arrays = {}
    return edit.done()


@_rewrite()
def identities_inserted(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _inserted(model, lambda before, after, name: [helper.make_node("Identity", [before], [after], name)])


@_rewrite()
def dropouts_inserted(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    def dropout(before: str, after: str, name: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Dropout", [before], [after, f"{after}/mask"], name)]

    return _inserted(model, dropout)


@_rewrite()
def casts_inserted(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _inserted(model, lambda before, after, name: [helper.make_node("Cast", [before], [after], name, to=TensorProto.FLOAT)])


def _inserted(model: onnx.ModelProto, make: Callable[[str, str, str], list[onnx.NodeProto]]) -> onnx.ModelProto:
    """Put nodes that change nothing in front of each convolution, rectifier and linear layer."""
    edit = _Edit(model)
    for number, node in enumerate(_of_type(edit, "Conv", "Relu", "Flatten", "Gemm")):
        passed = f"{node.input[0]}/passed{number}"
        edit.swap(node, *make(node.input[0], passed, f"passed{number}"), node)
        node.input[0] = passed
    return edit.done()


@_rewrite()
def pads_apart(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Each convolution's padding is a Pad node of its own."""
    edit = _Edit(model)
    for node in _of_type(edit, "Conv"):
        pads = _attributes(node).get("pads", [0])
        if not any(pads):
            continue
        top, left, bottom, right = pads
        widths = edit.constant(f"{node.name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right]))
        edit.swap(node, helper.make_node("Pad", [node.input[0], widths], [f"{node.name}/padded"], f"{node.name}.pad"), node)
        node.input[0] = f"{node.name}/padded"
        _set(node, pads=None)
    return edit.done()


@_rewrite()
def pads_named_same(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Padding said by auto_pad where that comes to the same."""
    edit = _Edit(model)
    for node in _of_type(edit, "Conv"):
        facts = _attributes(node)
        if facts.get("strides", [1, 1]) == [1, 1] and facts.get("pads") == [1, 1, 1, 1]:
            _set(node, pads=None, auto_pad="SAME_UPPER")
    return edit.done()


@_rewrite(pixels=1.0)
def normalisation_inside(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _normalised(model, MEAN, STD)


@_rewrite(pixels=255.0)
def normalisation_of_bytes_inside(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _normalised(model, MEAN * 255, STD * 255)


@_rewrite(pixels=1.0)
def normalisation_as_batch_norm_inside(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    name = edit.graph.input[0].name
    for node in edit.readers(name):
        node.input[:] = ["normalised" if own == name else own for own in node.input]
    arrays = {"gamma": np.ones(3, np.float32), "beta": np.zeros(3, np.float32), "mean": MEAN, "variance": STD**2}
    inputs = [edit.constant(f"normalise.{part}", array) for part, array in arrays.items()]
    norm = helper.make_node("BatchNormalization", [name, *inputs], ["normalised"], "normalise", epsilon=0.0)
    edit.nodes = [norm, *edit.nodes]
    return edit.done()


@_rewrite(pixels=1.0)
def normalisation_as_factor_and_term_inside(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    name = edit.graph.input[0].name
    for node in edit.readers(name):
        node.input[:] = ["normalised" if own == name else own for own in node.input]
    factor = edit.constant("factor", (1 / STD).reshape(1, 3, 1, 1))
    term = edit.constant("term", (-MEAN / STD).reshape(1, 3, 1, 1))
    edit.nodes = [
        helper.make_node("Mul", [name, factor], ["scaled"], "normalise.mul"),
        helper.make_node("Add", ["scaled", term], ["normalised"], "normalise.add"),
        *edit.nodes,
    ]
    return edit.done()


def _normalised(model: onnx.ModelProto, mean: np.ndarray, std: np.ndarray) -> onnx.ModelProto:
    edit = _Edit(model)
    name = edit.graph.input[0].name
    for node in edit.readers(name):
        node.input[:] = ["normalised" if own == name else own for own in node.input]
    edit.nodes = [
        helper.make_node("Sub", [name, edit.constant("mean", mean.reshape(1, 3, 1, 1))], ["centred"], "normalise.sub"),
        helper.make_node("Div", ["centred", edit.constant("std", std.reshape(1, 3, 1, 1))], ["normalised"], "normalise.div"),
        *edit.nodes,
    ]
    return edit.done()


@_rewrite()
def channels_last(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The input is (N, H, W, C)."""
    edit = _Edit(model)
    entry = edit.graph.input[0]
    dims = entry.type.tensor_type.shape.dim
    size = dims[2].dim_value
    dims[1].dim_value, dims[3].dim_value = size, 3
    for node in edit.readers(entry.name):
        node.input[:] = ["channels_first" if own == entry.name else own for own in node.input]
    edit.nodes = [helper.make_node("Transpose", [entry.name], ["channels_first"], "to_nchw", perm=[0, 3, 1, 2]), *edit.nodes]
    return edit.done()


def _of_opset(version: int, ir_version: int) -> Apply:
    def apply(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
        edit = _Edit(model)
        edit.model.opset_import[0].version, edit.model.ir_version = version, ir_version
        for node in _of_type(edit, "Clip"):
            if version < 11:
                low, high = (float(edit.arrays[name]) for name in node.input[1:])
                del node.input[1:]
                _set(node, min=low, max=high)
        rewritten = edit.done()
        onnx.checker.check_model(rewritten)
        return rewritten

    apply.__name__ = f"opset_{version}"
    return apply


for _version, _ir in ((8, 4), (9, 4), (10, 5), (11, 6), (12, 7), (13, 7), (18, 8), (22, 10)):
    _rewrite()(_of_opset(_version, _ir))


@_rewrite(sidecar=True)
def weights_beside(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _Edit(model).done()


@_rewrite()
def head_as_matmul(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    for node in _of_type(edit, "Gemm"):
        weight = edit.constant(f"{node.name}.transposed", np.ascontiguousarray(edit.arrays[node.input[1]].T))
        product = f"{node.name}/product"
        edit.swap(
            node,
            helper.make_node("MatMul", [node.input[0], weight], [product], node.name),
            helper.make_node("Add", [product, node.input[2]], list(node.output), f"{node.name}.add"),
        )
    return edit.done()


@_rewrite()
def head_not_transposed(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    for node in _of_type(edit, "Gemm"):
        node.input[1] = edit.constant(f"{node.name}.transposed", np.ascontiguousarray(edit.arrays[node.input[1]].T))
        _set(node, transB=None)
    return edit.done()


@_rewrite()
def head_scaled(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """A Gemm with alpha and beta."""
    edit = _Edit(model)
    for node in _of_type(edit, "Gemm"):
        node.input[1] = edit.constant(f"{node.name}.doubled", edit.arrays[node.input[1]] * 2)
        node.input[2] = edit.constant(f"{node.name}.halved", edit.arrays[node.input[2]] / 2)
        _set(node, alpha=0.5, beta=2.0)
    return edit.done()


@_rewrite()
def means_reduced(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """ReduceMean over height and width for GlobalAveragePool."""
    edit = _Edit(model)
    for node in _of_type(edit, "GlobalAveragePool"):
        axes = edit.constant("axes", np.array([-1, -2]))
        edit.swap(node, helper.make_node("ReduceMean", [node.input[0], axes], list(node.output), node.name, keepdims=1))
    return edit.done()


@_rewrite()
def last_mean_without_axes(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """ReduceMean that drops the axes, with no Flatten after it."""
    edit = _Edit(model)
    flatten = _of_type(edit, "Flatten")[0]
    pool = next(node for node in edit.nodes if node.output[0] == flatten.input[0])
    axes = edit.constant("axes", np.array([2, 3]))
    edit.swap(pool)
    edit.swap(flatten, helper.make_node("ReduceMean", [pool.input[0], axes], list(flatten.output), pool.name, keepdims=0))
    return edit.done()


@_rewrite()
def last_mean_as_average_pool(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """An AveragePool whose one window is the map."""
    edit = _Edit(model)
    flatten = _of_type(edit, "Flatten")[0]
    pool = next(node for node in edit.nodes if node.output[0] == flatten.input[0])
    shapes = {value.name: value.type.tensor_type.shape for value in model.graph.value_info}
    kernel = [dim.dim_value for dim in shapes[pool.input[0]].dim][2:]
    edit.swap(pool, helper.make_node("AveragePool", list(pool.input), list(pool.output), pool.name, kernel_shape=kernel))
    return edit.done()


@_rewrite()
def flattened_by_reshape(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    for node in _of_type(edit, "Flatten"):
        shape = edit.constant(f"{node.name}.shape", np.array([0, -1]))
        edit.swap(node, helper.make_node("Reshape", [node.input[0], shape], list(node.output), node.name))
    return edit.done()


@_rewrite()
def flattened_by_computed_shape(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """x.view(x.size(0), -1) as PyTorch's old exporter writes it."""
    edit = _Edit(model)
    for node in _of_type(edit, "Flatten"):
        name = node.name
        zero, axes, rest = (
            edit.constant(f"{name}.{part}", np.array(value)) for part, value in (("zero", 0), ("axes", [0]), ("rest", [-1]))
        )
        edit.swap(
            node,
            helper.make_node("Shape", [node.input[0]], [f"{name}/sizes"], f"{name}.size"),
            helper.make_node("Gather", [f"{name}/sizes", zero], [f"{name}/batch"], f"{name}.gather", axis=0),
            helper.make_node("Unsqueeze", [f"{name}/batch", axes], [f"{name}/batches"], f"{name}.unsqueeze"),
            helper.make_node("Concat", [f"{name}/batches", rest], [f"{name}/shape"], f"{name}.concat", axis=0),
            helper.make_node("Reshape", [node.input[0], f"{name}/shape"], list(node.output), name),
        )
    return edit.done()


@_rewrite()
def flattened_by_squeeze(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    for node in _of_type(edit, "Flatten"):
        axes = edit.constant(f"{node.name}.axes", np.array([2, 3]))
        edit.swap(node, helper.make_node("Squeeze", [node.input[0], axes], list(node.output), node.name))
    return edit.done()


@_rewrite()
def initializers_among_inputs(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    rewritten = _Edit(model).done()
    for tensor in rewritten.graph.initializer:
        rewritten.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return rewritten


@_rewrite()
def nodes_in_functions(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Rectifiers and global means are functions of the model's own."""
    edit = _Edit(model)
    domain, imports = "zoo", [helper.make_opsetid("", edit.model.opset_import[0].version)]
    for op_type in ("Relu", "GlobalAveragePool"):
        body = [helper.make_node(op_type, ["x"], ["y"], "inner")]
        edit.model.functions.append(helper.make_function(domain, f"My{op_type}", ["x"], ["y"], body, imports))
        for node in _of_type(edit, op_type):
            edit.swap(node, helper.make_node(f"My{op_type}", list(node.input), list(node.output), node.name, domain=domain))
    edit.model.opset_import.append(helper.make_opsetid(domain, 1))
    return edit.done()


@_rewrite()
def softmax_at_end(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    name = edit.graph.output[0].name
    edit.graph.output[0].name = "probabilities"
    edit.nodes.append(helper.make_node("Softmax", [name], ["probabilities"], "softmax", axis=1))
    return edit.done()


@_rewrite()
def several_outputs(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The last feature map is given, too, and comes first."""
    edit = _Edit(model)
    pool = _of_type(edit, "GlobalAveragePool")[-1]
    logits = edit.graph.output[0]
    features = helper.make_tensor_value_info(pool.input[0], TensorProto.FLOAT, None)
    given = onnx.shape_inference.infer_shapes(model)
    features = next(value for value in given.graph.value_info if value.name == pool.input[0])
    del edit.graph.output[:]
    edit.graph.output.extend([features, logits])
    return edit.done()


@_rewrite()
def biases_apart(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Each convolution's bias is an Add of its own."""
    edit = _Edit(model)
    for node in _of_type(edit, "Conv"):
        if len(node.input) < 3:
            continue
        bias = edit.constant(f"{node.name}.apart", edit.arrays[node.input[2]].reshape(1, -1, 1, 1))
        name, raw = node.output[0], f"{node.output[0]}/raw"
        conv = helper.make_node("Conv", list(node.input)[:2], [raw], node.name, **_attributes(node))
        edit.swap(node, conv, helper.make_node("Add", [raw, bias], [name], f"{node.name}.add"))
    return edit.done()


@_rewrite()
def scales_apart(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Each convolution is followed by a Mul and an Add of constants, as a normalisation that somebody took apart."""
    edit = _Edit(model)
    for node in _of_type(edit, "Conv"):
        if len(node.input) < 3:
            continue
        weight, bias = edit.arrays[node.input[1]], edit.arrays[node.input[2]]
        factor = rng.uniform(0.5, 2, len(bias)).astype(np.float32)
        name, raw, scaled = node.output[0], f"{node.output[0]}/raw", f"{node.output[0]}/scaled"
        own = edit.constant(f"{name}/weight", weight / factor.reshape(-1, 1, 1, 1))
        constants = [edit.constant(f"{name}/{part}", a.reshape(1, -1, 1, 1)) for part, a in (("factor", factor), ("bias", bias))]
        edit.swap(
            node,
            helper.make_node("Conv", [node.input[0], own], [raw], node.name, **_attributes(node)),
            helper.make_node("Mul", [raw, constants[0]], [scaled], f"{node.name}.mul"),
            helper.make_node("Add", [scaled, constants[1]], [name], f"{node.name}.add"),
        )
    return edit.done()


@_rewrite()
def rectified_by_clip(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _rectified(model, lambda edit, node: ("Clip", [node.input[0], edit.constant("zero", np.float32(0))], {}))


@_rewrite()
def rectified_by_max(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _rectified(model, lambda edit, node: ("Max", [node.input[0], edit.constant("zero", np.float32(0))], {}))


@_rewrite()
def rectified_by_leaky_relu(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _rectified(model, lambda edit, node: ("LeakyRelu", [node.input[0]], {"alpha": 0.0}))


def _rectified(
    model: onnx.ModelProto, make: Callable[[_Edit, onnx.NodeProto], tuple[str, list[str], dict[str, Any]]]
) -> onnx.ModelProto:
    edit = _Edit(model)
    for node in _of_type(edit, "Relu"):
        op_type, inputs, attributes = make(edit, node)
        edit.swap(node, helper.make_node(op_type, inputs, list(node.output), node.name, **attributes))
    return edit.done()


@_rewrite()
def relu6_as_min_and_relu(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    for node in _of_type(edit, "Clip"):
        low, high = node.input[1:]
        edit.swap(
            node,
            helper.make_node("Min", [node.input[0], high], [f"{node.name}/least"], f"{node.name}.min"),
            helper.make_node("Max", [f"{node.name}/least", low], list(node.output), node.name),
        )
    return edit.done()


@_rewrite()
def operands_swapped(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The operands of every Add and Mul in the other order."""
    edit = _Edit(model)
    for node in _of_type(edit, "Add", "Mul"):
        node.input[:] = list(reversed(node.input))
    return edit.done()


@_rewrite()
def sums_for_adds(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    for node in _of_type(edit, "Add"):
        node.op_type = "Sum"
    return edit.done()


@_rewrite()
def gates_expanded(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """x * gate.expand_as(x): the gate has the map's size, which is computed from the map."""
    edit = _Edit(model)
    gates = {node.output[0] for node in _of_type(edit, "Sigmoid")}
    for node in _of_type(edit, "Mul"):
        if node.input[1] in gates:
            name = node.name
            edit.swap(
                node,
                helper.make_node("Shape", [node.input[0]], [f"{name}/sizes"], f"{name}.size"),
                helper.make_node("Expand", [node.input[1], f"{name}/sizes"], [f"{name}/whole"], f"{name}.expand"),
                node,
            )
            node.input[1] = f"{name}/whole"
    return edit.done()


@_rewrite()
def across_in_one_dimension(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """ECA's convolution as its authors wrote it: Squeeze, Transpose, a one-dimensional Conv, Transpose, Unsqueeze."""
    edit = _Edit(model)
    last = edit.constant("last_axis", np.array([-1]))
    for node in _of_type(edit, "Conv"):
        weight = edit.arrays[node.input[1]]
        before = next((other for other in edit.nodes if other.output[0] == node.input[0]), None)
        if weight.shape[:2] != (1, 1) or before is None or before.op_type != "Reshape":
            continue
        after, name = edit.readers(node.output[0])[0], node.name
        own = edit.constant(f"{name}.flat", weight[..., 0])
        pads = [_attributes(node)["pads"][0]] * 2
        edit.swap(
            before,
            helper.make_node("Squeeze", [before.input[0], last], [f"{name}/squeezed"], f"{name}.squeeze"),
            helper.make_node("Transpose", [f"{name}/squeezed"], [f"{name}/row"], f"{name}.transpose", perm=[0, 2, 1]),
        )
        edit.swap(node, helper.make_node("Conv", [f"{name}/row", own], [f"{name}/mixed"], name, pads=pads))
        edit.swap(
            after,
            helper.make_node("Transpose", [f"{name}/mixed"], [f"{name}/turned"], f"{name}.transpose_1", perm=[0, 2, 1]),
            helper.make_node("Unsqueeze", [f"{name}/turned", last], list(after.output), f"{name}.unsqueeze"),
        )
    return edit.done()


@_rewrite()
def channels_tiled(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Channels repeated by Expand and Tile for Concat of one tensor with itself."""
    edit = _Edit(model)
    for node in _of_type(edit, "Concat"):
        if len(set(node.input)) != 1:
            continue
        ones, repeats = (
            edit.constant("ones", np.array([1, 1, 1, 1])),
            edit.constant("repeats", np.array([1, len(node.input), 1, 1])),
        )
        whole = f"{node.name}/whole"
        edit.swap(
            node,
            helper.make_node("Expand", [node.input[0], ones], [whole], f"{node.name}.expand"),
            helper.make_node("Tile", [whole, repeats], list(node.output), node.name),
        )
    return edit.done()


@_rewrite()
def batch_of_one(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    for value in (*edit.graph.input, *edit.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return edit.done()


@_rewrite()
def output_shape_unknown(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    edit.graph.output[0].type.tensor_type.ClearField("shape")
    return edit.done()


@_rewrite()
def constants_twice(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Each node has constants of its own, those that were shared too, and unused ones lie about."""
    edit = _Edit(model)
    for number, node in enumerate(edit.nodes):
        for index, name in enumerate(node.input):
            if name in edit.arrays:
                node.input[index] = edit.constant(f"{name}/{number}", edit.arrays[name])
    rewritten = edit.done()
    rewritten.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "left_over"))
    return rewritten


@_rewrite()
def paddle_style(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """As Paddle2ONNX writes: opset 11, weights in Constant nodes, unfolded norms, MatMul, a scale of one, no node names."""
    steps: list[Apply] = [batch_norm_unfolded, head_as_matmul, _scaled_by_one, names_removed, weights_in_constants]
    for step in steps:
        model = step(model, rng)
    edit = _Edit(model)
    edit.model.producer_name = ""
    edit.model.opset_import[0].version, edit.model.ir_version = 11, 7
    return edit.done()


def _scaled_by_one(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Put a scale operator that multiplies by one and adds zero behind the last pooling."""
    edit = _Edit(model)
    pool = _of_type(edit, "GlobalAveragePool")[-1]
    name = pool.output[0]
    pool.output[0] = f"{name}/pooled"
    one, zero = edit.constant("scale_one", np.ones(1, np.float32)), edit.constant("scale_zero", np.zeros(1, np.float32))
    edit.swap(
        pool,
        pool,
        helper.make_node("Mul", [f"{name}/pooled", one], [f"{name}/scaled"], "scale.mul"),
        helper.make_node("Add", [f"{name}/scaled", zero], [name], "scale.add"),
    )
    return edit.done()


@_rewrite(half=True)
def float16_throughout(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = _Edit(model)
    edit.arrays = {name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in edit.arrays.items()}
    for value in (*edit.graph.input, *edit.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return edit.done()


def a_branch_left(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Put a rectifier into an If whose condition depends on the picture, so that no tool can put it in line; no equal network."""
    edit = _Edit(model)
    node = [node for node in edit.nodes if node.op_type in ("Relu", "Clip") and "block" in node.name][-1]

    def branch(name: str, inner: onnx.NodeProto) -> onnx.GraphProto:
        result = helper.make_tensor_value_info(inner.output[0], TensorProto.FLOAT, None)
        return helper.make_graph([inner], name, [], [result])

    rectified = helper.make_node(node.op_type, list(node.input), ["rectified"], "rectify")
    limit = edit.constant("limit", np.float32(1e6))
    branches = {
        "then_branch": branch("dark", helper.make_node("Neg", [node.input[0]], ["negated"], "negate")),
        "else_branch": branch("bright", rectified),
    }
    edit.swap(
        node,
        helper.make_node("ReduceMax", [edit.graph.input[0].name], ["largest"], "largest", keepdims=0),
        helper.make_node("Greater", ["largest", limit], ["beyond"], "beyond"),
        helper.make_node("If", ["beyond"], list(node.output), "branch", **branches),
    )
    edit.inner.update(rectified.input)
    return edit.done()
