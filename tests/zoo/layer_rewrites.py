"""Rewrites of names, constants, layers, the input and the opset."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zoo.editing import MEAN, STD, Apply, Edit, attributes_of, of_type, rewrite, set_attributes


@rewrite()
def nothing(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return Edit(model).done()


@rewrite()
def shapes_inferred(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model)


@rewrite()
def names_removed(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Nodes have no names, and tensors have numbers."""
    edit = Edit(model)
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


@rewrite()
def nodes_reordered(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The nodes are in another valid order."""
    edit = Edit(model)
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


@rewrite()
def batch_norm_unfolded(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Each convolution becomes one without bias, followed by a BatchNormalization that folds back into it."""
    edit = Edit(model)
    for node in of_type(edit, "Conv"):
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
        conv = helper.make_node("Conv", [node.input[0], own], [raw], node.name, **attributes_of(node))
        edit.swap(node, conv, helper.make_node("BatchNormalization", [raw, *inputs], [name], f"{node.name}.bn", epsilon=1e-5))
    return edit.done()


@rewrite()
def weights_in_constants(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))
        for name, array in edit.arrays.items()
    ]
    edit.nodes = [*constants, *edit.nodes]
    edit.arrays = {}
    return edit.done()


@rewrite()
def identities_inserted(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _inserted(model, lambda before, after, name: [helper.make_node("Identity", [before], [after], name)])


@rewrite()
def dropouts_inserted(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    def dropout(before: str, after: str, name: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Dropout", [before], [after, f"{after}/mask"], name)]

    return _inserted(model, dropout)


@rewrite()
def casts_inserted(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _inserted(model, lambda before, after, name: [helper.make_node("Cast", [before], [after], name, to=TensorProto.FLOAT)])


def _inserted(model: onnx.ModelProto, make: Callable[[str, str, str], list[onnx.NodeProto]]) -> onnx.ModelProto:
    """Insert identity nodes before each convolution, rectifier and linear layer."""
    edit = Edit(model)
    for number, node in enumerate(of_type(edit, "Conv", "Relu", "Flatten", "Gemm")):
        passed = f"{node.input[0]}/passed{number}"
        edit.swap(node, *make(node.input[0], passed, f"passed{number}"), node)
        node.input[0] = passed
    return edit.done()


@rewrite()
def pads_apart(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Each convolution's padding is a separate Pad node."""
    edit = Edit(model)
    for node in of_type(edit, "Conv"):
        pads = attributes_of(node).get("pads", [])
        if len(pads) != 4 or not any(pads):
            continue
        top, left, bottom, right = pads
        widths = edit.constant(f"{node.name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right]))
        edit.swap(node, helper.make_node("Pad", [node.input[0], widths], [f"{node.name}/padded"], f"{node.name}.pad"), node)
        node.input[0] = f"{node.name}/padded"
        set_attributes(node, pads=None)
    return edit.done()


@rewrite()
def pads_named_same(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Padding is given by auto_pad where that is equivalent."""
    edit = Edit(model)
    for node in of_type(edit, "Conv"):
        facts = attributes_of(node)
        if facts.get("strides", [1, 1]) == [1, 1] and facts.get("pads") == [1, 1, 1, 1]:
            set_attributes(node, pads=None, auto_pad="SAME_UPPER")
    return edit.done()


@rewrite(pixels=1.0)
def normalisation_inside(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _normalised(model, MEAN, STD)


@rewrite(pixels=255.0)
def normalisation_of_bytes_inside(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _normalised(model, MEAN * 255, STD * 255)


@rewrite(pixels=1.0)
def normalisation_as_batch_norm_inside(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    name = edit.graph.input[0].name
    for node in edit.readers(name):
        node.input[:] = ["normalised" if own == name else own for own in node.input]
    arrays = {"gamma": np.ones(3, np.float32), "beta": np.zeros(3, np.float32), "mean": MEAN, "variance": STD**2}
    inputs = [edit.constant(f"normalise.{part}", array) for part, array in arrays.items()]
    norm = helper.make_node("BatchNormalization", [name, *inputs], ["normalised"], "normalise", epsilon=0.0)
    edit.nodes = [norm, *edit.nodes]
    return edit.done()


@rewrite(pixels=1.0)
def normalisation_as_factor_and_term_inside(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
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
    edit = Edit(model)
    name = edit.graph.input[0].name
    for node in edit.readers(name):
        node.input[:] = ["normalised" if own == name else own for own in node.input]
    edit.nodes = [
        helper.make_node("Sub", [name, edit.constant("mean", mean.reshape(1, 3, 1, 1))], ["centred"], "normalise.sub"),
        helper.make_node("Div", ["centred", edit.constant("std", std.reshape(1, 3, 1, 1))], ["normalised"], "normalise.div"),
        *edit.nodes,
    ]
    return edit.done()


@rewrite()
def channels_last(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The input is (N, H, W, C)."""
    edit = Edit(model)
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
        edit = Edit(model)
        edit.model.opset_import[0].version, edit.model.ir_version = version, ir_version
        for node in of_type(edit, "Clip"):
            if version < 11:
                low, high = (float(edit.arrays[name]) for name in node.input[1:])
                del node.input[1:]
                set_attributes(node, min=low, max=high)
        rewritten = edit.done()
        onnx.checker.check_model(rewritten)
        return rewritten

    apply.__name__ = f"opset_{version}"
    return apply


for _version, _ir in ((8, 4), (9, 4), (10, 5), (11, 6), (12, 7), (13, 7), (18, 8), (22, 10)):
    rewrite()(_of_opset(_version, _ir))


@rewrite(sidecar=True)
def weights_beside(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return Edit(model).done()


@rewrite()
def head_as_matmul(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    for node in of_type(edit, "Gemm"):
        weight = edit.constant(f"{node.name}.transposed", np.ascontiguousarray(edit.arrays[node.input[1]].T))
        product = f"{node.name}/product"
        edit.swap(
            node,
            helper.make_node("MatMul", [node.input[0], weight], [product], node.name),
            helper.make_node("Add", [product, node.input[2]], list(node.output), f"{node.name}.add"),
        )
    return edit.done()


@rewrite()
def head_not_transposed(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    for node in of_type(edit, "Gemm"):
        node.input[1] = edit.constant(f"{node.name}.transposed", np.ascontiguousarray(edit.arrays[node.input[1]].T))
        set_attributes(node, transB=None)
    return edit.done()


@rewrite()
def head_scaled(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """A Gemm with alpha and beta."""
    edit = Edit(model)
    for node in of_type(edit, "Gemm"):
        node.input[1] = edit.constant(f"{node.name}.doubled", edit.arrays[node.input[1]] * 2)
        node.input[2] = edit.constant(f"{node.name}.halved", edit.arrays[node.input[2]] / 2)
        set_attributes(node, alpha=0.5, beta=2.0)
    return edit.done()
