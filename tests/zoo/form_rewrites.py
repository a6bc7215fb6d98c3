"""Rewrites of poolings, outputs, rectifiers and attention, and whole styles of exporters."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zoo.editing import Apply, Edit, attributes_of, of_type, rewrite
from zoo.layer_rewrites import batch_norm_unfolded, head_as_matmul, names_removed, weights_in_constants


@rewrite()
def means_reduced(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """ReduceMean over height and width for GlobalAveragePool."""
    edit = Edit(model)
    for node in of_type(edit, "GlobalAveragePool"):
        axes = edit.constant("axes", np.array([-1, -2]))
        edit.swap(node, helper.make_node("ReduceMean", [node.input[0], axes], list(node.output), node.name, keepdims=1))
    return edit.done()


@rewrite()
def last_mean_without_axes(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """ReduceMean that drops the axes, with no Flatten after it."""
    edit = Edit(model)
    flatten = of_type(edit, "Flatten")[0]
    pool = next(node for node in edit.nodes if node.output[0] == flatten.input[0])
    axes = edit.constant("axes", np.array([2, 3]))
    edit.swap(pool)
    edit.swap(flatten, helper.make_node("ReduceMean", [pool.input[0], axes], list(flatten.output), pool.name, keepdims=0))
    return edit.done()


@rewrite()
def last_mean_as_average_pool(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """An AveragePool whose only window is the whole map."""
    edit = Edit(model)
    flatten = of_type(edit, "Flatten")[0]
    pool = next(node for node in edit.nodes if node.output[0] == flatten.input[0])
    shapes = {value.name: value.type.tensor_type.shape for value in model.graph.value_info}
    kernel = [dim.dim_value for dim in shapes[pool.input[0]].dim][2:]
    edit.swap(pool, helper.make_node("AveragePool", list(pool.input), list(pool.output), pool.name, kernel_shape=kernel))
    return edit.done()


@rewrite()
def flattened_by_reshape(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    for node in of_type(edit, "Flatten"):
        shape = edit.constant(f"{node.name}.shape", np.array([0, -1]))
        edit.swap(node, helper.make_node("Reshape", [node.input[0], shape], list(node.output), node.name))
    return edit.done()


@rewrite()
def flattened_by_computed_shape(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """x.view(x.size(0), -1) in the form of PyTorch's old exporter."""
    edit = Edit(model)
    for node in of_type(edit, "Flatten"):
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


@rewrite()
def flattened_by_squeeze(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    for node in of_type(edit, "Flatten"):
        axes = edit.constant(f"{node.name}.axes", np.array([2, 3]))
        edit.swap(node, helper.make_node("Squeeze", [node.input[0], axes], list(node.output), node.name))
    return edit.done()


@rewrite()
def initializers_among_inputs(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    rewritten = Edit(model).done()
    for tensor in rewritten.graph.initializer:
        rewritten.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return rewritten


@rewrite()
def nodes_in_functions(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Rectifiers and global means are functions defined in the model."""
    edit = Edit(model)
    domain, imports = "zoo", [helper.make_opsetid("", edit.model.opset_import[0].version)]
    for op_type in ("Relu", "GlobalAveragePool"):
        body = [helper.make_node(op_type, ["x"], ["y"], "inner")]
        edit.model.functions.append(helper.make_function(domain, f"My{op_type}", ["x"], ["y"], body, imports))
        for node in of_type(edit, op_type):
            edit.swap(node, helper.make_node(f"My{op_type}", list(node.input), list(node.output), node.name, domain=domain))
    edit.model.opset_import.append(helper.make_opsetid(domain, 1))
    return edit.done()


@rewrite()
def softmax_at_end(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    name = edit.graph.output[0].name
    edit.graph.output[0].name = "probabilities"
    edit.nodes.append(helper.make_node("Softmax", [name], ["probabilities"], "softmax", axis=1))
    return edit.done()


@rewrite()
def several_outputs(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The last feature map becomes an output too, the first one."""
    edit = Edit(model)
    pool = of_type(edit, "GlobalAveragePool")[-1]
    logits = edit.graph.output[0]
    features = helper.make_tensor_value_info(pool.input[0], TensorProto.FLOAT, None)
    given = onnx.shape_inference.infer_shapes(model)
    features = next(value for value in given.graph.value_info if value.name == pool.input[0])
    del edit.graph.output[:]
    edit.graph.output.extend([features, logits])
    return edit.done()


@rewrite()
def biases_apart(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Each convolution's bias is a separate Add."""
    edit = Edit(model)
    for node in of_type(edit, "Conv"):
        if len(node.input) < 3:
            continue
        bias = edit.constant(f"{node.name}.apart", edit.arrays[node.input[2]].reshape(1, -1, 1, 1))
        name, raw = node.output[0], f"{node.output[0]}/raw"
        conv = helper.make_node("Conv", list(node.input)[:2], [raw], node.name, **attributes_of(node))
        edit.swap(node, conv, helper.make_node("Add", [raw, bias], [name], f"{node.name}.add"))
    return edit.done()


@rewrite()
def scales_apart(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """A Mul and an Add of constants follow each convolution, like a decomposed normalisation."""
    edit = Edit(model)
    for node in of_type(edit, "Conv"):
        if len(node.input) < 3:
            continue
        weight, bias = edit.arrays[node.input[1]], edit.arrays[node.input[2]]
        factor = rng.uniform(0.5, 2, len(bias)).astype(np.float32)
        name, raw, scaled = node.output[0], f"{node.output[0]}/raw", f"{node.output[0]}/scaled"
        own = edit.constant(f"{name}/weight", weight / factor.reshape(-1, 1, 1, 1))
        constants = [edit.constant(f"{name}/{part}", a.reshape(1, -1, 1, 1)) for part, a in (("factor", factor), ("bias", bias))]
        edit.swap(
            node,
            helper.make_node("Conv", [node.input[0], own], [raw], node.name, **attributes_of(node)),
            helper.make_node("Mul", [raw, constants[0]], [scaled], f"{node.name}.mul"),
            helper.make_node("Add", [scaled, constants[1]], [name], f"{node.name}.add"),
        )
    return edit.done()


@rewrite()
def rectified_by_clip(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _rectified(model, lambda edit, node: ("Clip", [node.input[0], edit.constant("zero", np.float32(0))], {}))


@rewrite()
def rectified_by_max(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _rectified(model, lambda edit, node: ("Max", [node.input[0], edit.constant("zero", np.float32(0))], {}))


@rewrite()
def rectified_by_leaky_relu(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    return _rectified(model, lambda edit, node: ("LeakyRelu", [node.input[0]], {"alpha": 0.0}))


def _rectified(
    model: onnx.ModelProto, make: Callable[[Edit, onnx.NodeProto], tuple[str, list[str], dict[str, Any]]]
) -> onnx.ModelProto:
    edit = Edit(model)
    for node in of_type(edit, "Relu"):
        op_type, inputs, attributes = make(edit, node)
        edit.swap(node, helper.make_node(op_type, inputs, list(node.output), node.name, **attributes))
    return edit.done()


@rewrite()
def relu6_as_min_and_relu(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    for node in of_type(edit, "Clip"):
        low, high = node.input[1:]
        edit.swap(
            node,
            helper.make_node("Min", [node.input[0], high], [f"{node.name}/least"], f"{node.name}.min"),
            helper.make_node("Max", [f"{node.name}/least", low], list(node.output), node.name),
        )
    return edit.done()


@rewrite()
def operands_swapped(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The operands of every Add and Mul are swapped."""
    edit = Edit(model)
    for node in of_type(edit, "Add", "Mul"):
        node.input[:] = list(reversed(node.input))
    return edit.done()


@rewrite()
def sums_for_adds(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    for node in of_type(edit, "Add"):
        node.op_type = "Sum"
    return edit.done()


@rewrite()
def gates_expanded(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """x * gate.expand_as(x): the gate has the map's size, which is computed from the map."""
    edit = Edit(model)
    gates = {node.output[0] for node in of_type(edit, "Sigmoid")}
    for node in of_type(edit, "Mul"):
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


@rewrite()
def across_in_one_dimension(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """ECA's convolution in its authors' form: Squeeze, Transpose, a one-dimensional Conv, Transpose, Unsqueeze."""
    edit = Edit(model)
    last = edit.constant("last_axis", np.array([-1]))
    for node in of_type(edit, "Conv"):
        weight = edit.arrays[node.input[1]]
        before = next((other for other in edit.nodes if other.output[0] == node.input[0]), None)
        if weight.shape[:2] != (1, 1) or before is None or before.op_type != "Reshape":
            continue
        after, name = edit.readers(node.output[0])[0], node.name
        own = edit.constant(f"{name}.flat", weight[..., 0])
        pads = [attributes_of(node)["pads"][0]] * 2
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


@rewrite()
def channels_tiled(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Expand and Tile repeat channels instead of Concat of a tensor with itself."""
    edit = Edit(model)
    for node in of_type(edit, "Concat"):
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


@rewrite()
def batch_of_one(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    for value in (*edit.graph.input, *edit.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return edit.done()


@rewrite()
def output_shape_unknown(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    edit.graph.output[0].type.tensor_type.ClearField("shape")
    return edit.done()


@rewrite()
def constants_twice(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Each node has its own copies of constants, and there are unused constants."""
    edit = Edit(model)
    for number, node in enumerate(edit.nodes):
        for index, name in enumerate(node.input):
            if name in edit.arrays:
                node.input[index] = edit.constant(f"{name}/{number}", edit.arrays[name])
    rewritten = edit.done()
    rewritten.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "left_over"))
    return rewritten


@rewrite()
def paddle_style(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The form of Paddle2ONNX: opset 11, weights in Constant nodes, unfolded norms, MatMul, a scale of one, no node names."""
    steps: list[Apply] = [batch_norm_unfolded, head_as_matmul, _scaled_by_one, names_removed, weights_in_constants]
    for step in steps:
        model = step(model, rng)
    edit = Edit(model)
    edit.model.producer_name = ""
    edit.model.opset_import[0].version, edit.model.ir_version = 11, 7
    return edit.done()


def _scaled_by_one(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Insert a scale operator, times one plus zero, after the last pooling."""
    edit = Edit(model)
    pool = of_type(edit, "GlobalAveragePool")[-1]
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


@rewrite(half=True)
def float16_throughout(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    edit = Edit(model)
    edit.arrays = {name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in edit.arrays.items()}
    for value in (*edit.graph.input, *edit.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return edit.done()


def a_branch_left(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Put a rectifier into an If whose condition depends on the picture: no tool can inline it, and the network is not equal."""
    edit = Edit(model)
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
