"""Small networks of common convolutional blocks with random weights, as canonical graphs, for tests of placements."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ACTIVATIONS = (
    "relu", "relu6", "leaky", "prelu", "silu", "hardswish", "hardswish_clip", "hardswish_gate", "hardsigmoid", "elu", "gelu",
    "gelu_erf", "gelu_tanh", "mish", "mish_parts", "softplus",
)  # fmt: skip
BLOCKS = (
    "vgg", "residual", "bottleneck", "inverted", "mobile_v3", "lcnet", "shuffle", "dense", "inception", "repvgg", "convnext",
    "squeeze_excite", "resampled", "preactivation",
)  # fmt: skip
HEADS = ("gemm", "matmul", "conv", "mlp", "reduce_mean", "softmax", "no_layer")


class Network:
    """A graph under construction; every method appends nodes and returns the name of a tensor."""

    def __init__(self, seed: int, size: int = 32) -> None:
        self.rng = np.random.default_rng(seed)
        self.size, self.nodes, self.stored, self.layers = size, [], [], []

    def put(self, op: str, inputs: list[str], outputs: int = 1, **attributes):
        name = f"{op.lower()}{len(self.nodes)}"
        results = [f"{name}.out{index}" if outputs > 1 else f"{name}.out" for index in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, results, name=name, **attributes))
        return results if outputs > 1 else results[0]

    def store(self, array, dtype=np.float32) -> str:
        name = f"constant{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def conv(self, x: str, cin: int, cout: int, kernel: int = 3, stride: int = 1, groups: int = 1, gain: float = 1.4) -> str:
        fan_in = cin // groups * kernel**2
        weight = self.rng.standard_normal((cout, cin // groups, kernel, kernel)) * gain / np.sqrt(fan_in)
        weight *= self.rng.uniform(0.5, 1.5, (cout, 1, 1, 1))
        bias = self.rng.standard_normal(cout) * 0.3
        out = self.put(
            "Conv", [x, self.store(weight), self.store(bias)], kernel_shape=[kernel] * 2, strides=[stride] * 2,
            pads=[kernel // 2] * 4, group=groups,
        )  # fmt: skip
        self.layers.append(self.nodes[-1].name)
        return out

    def linear(self, x: str, cin: int, cout: int, op: str = "MatMul") -> str:
        weight = self.rng.standard_normal((cin, cout)) * 1.4 / np.sqrt(cin)
        bias = self.store(self.rng.standard_normal(cout) * 0.3)
        if op == "Gemm":
            out = self.put("Gemm", [x, self.store(weight.T), bias], transB=1)
            self.layers.append(self.nodes[-1].name)
            return out
        product = self.put("MatMul", [x, self.store(weight)])
        self.layers.append(self.nodes[-1].name)
        return self.put("Add", [product, bias])

    def act(self, x: str, kind: str, channels: int = 1) -> str:  # noqa: C901 - one line a form
        put, store = self.put, self.store
        match kind:
            case "relu":
                return put("Relu", [x])
            case "relu6":
                return put("Clip", [x, store(0.0), store(6.0)])
            case "leaky":
                return put("LeakyRelu", [x], alpha=0.1)
            case "prelu":
                return put("PRelu", [x, store(self.rng.uniform(0, 0.4, (channels, 1, 1)))])
            case "silu":
                return put("Mul", [x, put("Sigmoid", [x])])
            case "hardswish":
                return put("HardSwish", [x])
            case "hardswish_clip":
                clipped = put("Clip", [put("Add", [x, store(3.0)]), store(0.0), store(6.0)])
                return put("Div", [put("Mul", [x, clipped]), store(6.0)])
            case "hardswish_gate":
                return put("Mul", [x, put("HardSigmoid", [x], alpha=1 / 6, beta=0.5)])
            case "hardsigmoid":
                return put("HardSigmoid", [x], alpha=0.2, beta=0.5)
            case "elu":
                return put("Elu", [x])
            case "gelu":
                return put("Gelu", [x])
            case "gelu_erf":
                shifted = put("Add", [put("Erf", [put("Div", [x, store(np.sqrt(2.0))])]), store(1.0)])
                return put("Mul", [put("Mul", [x, shifted]), store(0.5)])
            case "gelu_tanh":
                inner = put("Add", [x, put("Mul", [put("Pow", [x, store(3.0)]), store(0.044715)])])
                shifted = put("Add", [put("Tanh", [put("Mul", [inner, store(np.sqrt(2 / np.pi))])]), store(1.0)])
                return put("Mul", [put("Mul", [x, store(0.5)]), shifted])
            case "mish":
                return put("Mish", [x])
            case "mish_parts":
                return put("Mul", [x, put("Tanh", [put("Softplus", [x])])])
            case "softplus":
                return put("Softplus", [x])
        raise ValueError(kind)

    def squeeze_excite(self, x: str, channels: int, gate: str = "hard") -> str:
        pooled = self.put("GlobalAveragePool", [x])
        count = len(self.layers)
        hidden = self.put("Relu", [self.conv(pooled, channels, max(channels // 4, 4), 1)])
        excited = self.conv(hidden, max(channels // 4, 4), channels, 1)
        del self.layers[count:]  # the layers of attention stay in float
        sigmoid = self.put("HardSigmoid", [excited], alpha=0.2, beta=0.5) if gate == "hard" else self.put("Sigmoid", [excited])
        return self.put("Mul", [x, sigmoid])

    def block(self, kind: str, x: str, channels: int, act: str) -> tuple[str, int]:
        """Append a block and return its output and that tensor's number of channels."""
        return getattr(self, f"_{kind}")(x, channels, act)

    def _vgg(self, x, c, act):
        x = self.act(self.conv(x, c, c), act, c)
        return self.put("MaxPool", [self.act(self.conv(x, c, c), act, c)], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), c

    def _residual(self, x, c, act):
        y = self.conv(self.act(self.conv(x, c, c), act, c), c, c)
        return self.act(self.put("Add", [y, x]), act, c), c

    def _preactivation(self, x, c, act):
        scaled = self.put("Mul", [x, self.store(self.rng.uniform(0.5, 1.5, (1, c, 1, 1)))])
        y = self.act(self.put("Add", [scaled, self.store(self.rng.standard_normal((1, c, 1, 1)) * 0.3)]), act, c)
        return self.put("Add", [self.conv(y, c, c), x]), c

    def _bottleneck(self, x, c, act):
        y = self.act(self.conv(x, c, c // 2, 1), act, c // 2)
        y = self.act(self.conv(y, c // 2, c // 2, groups=2), act, c // 2)
        y = self.conv(y, c // 2, 2 * c, 1)
        return self.act(self.put("Add", [y, self.conv(x, c, 2 * c, 1)]), act, 2 * c), 2 * c

    def _inverted(self, x, c, act):
        y = self.act(self.conv(x, c, 3 * c, 1), act, 3 * c)
        y = self.act(self.conv(y, 3 * c, 3 * c, groups=3 * c), act, 3 * c)
        return self.put("Add", [x, self.conv(y, 3 * c, c, 1)]), c

    def _mobile_v3(self, x, c, act):
        y = self.act(self.conv(x, c, 3 * c, 1), act, 3 * c)
        y = self.act(self.conv(y, 3 * c, 3 * c, 5, groups=3 * c), act, 3 * c)
        return self.put("Add", [self.conv(self.squeeze_excite(y, 3 * c), 3 * c, c, 1), x]), c

    def _lcnet(self, x, c, act):
        y = self.act(self.conv(x, c, c, 5, 2, groups=c), act, c)
        return self.act(self.conv(self.squeeze_excite(y, c), c, 2 * c, 1), act, 2 * c), 2 * c

    def _squeeze_excite(self, x, c, act):
        y = self.squeeze_excite(self.conv(self.act(self.conv(x, c, c), act, c), c, c), c, "soft")
        return self.act(self.put("Add", [y, x]), act, c), c

    def _shuffle(self, x, c, act):
        half = c // 2
        kept, y = self.put("Split", [x], 2, axis=1, num_outputs=2)
        y = self.act(self.conv(y, half, half, 1), act, half)
        y = self.act(self.conv(self.conv(y, half, half, groups=half), half, half, 1), act, half)
        joined = self.put("Concat", [kept, y], axis=1)
        size = self.side(x)
        parts = self.put("Reshape", [joined, self.store([0, 2, half, size, size], np.int64)])
        turned = self.put("Transpose", [parts], perm=[0, 2, 1, 3, 4])
        return self.put("Reshape", [turned, self.store([0, c, size, size], np.int64)]), c

    def _dense(self, x, c, act):
        for _ in range(2):
            scaled = self.put("Mul", [x, self.store(self.rng.uniform(0.5, 1.5, (1, c, 1, 1)))])
            y = self.act(self.put("Add", [scaled, self.store(self.rng.standard_normal((1, c, 1, 1)) * 0.3)]), act, c)
            x, c = self.put("Concat", [x, self.conv(y, c, 8)], axis=1), c + 8
        return self.put("AveragePool", [self.conv(x, c, c // 2, 1)], kernel_shape=[2, 2], strides=[2, 2]), c // 2

    def _inception(self, x, c, act):
        part = max(c // 4, 4)
        pooled = self.put("AveragePool", [x], kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, count_include_pad=1)
        branches = [
            self.act(self.conv(x, c, part, 1), act, part),
            self.act(self.conv(self.act(self.conv(x, c, part, 1), act, part), part, part), act, part),
            self.act(
                self.conv(self.put("MaxPool", [x], kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4), c, part, 1), act, part
            ),
            self.act(self.conv(pooled, c, part, 1), act, part),
        ]
        return self.put("Concat", branches, axis=1), 4 * part

    def _repvgg(self, x, c, act):
        both = self.put("Add", [self.conv(x, c, c), self.conv(x, c, c, 1)])
        return self.act(self.put("Add", [both, x]), act, c), c

    def _convnext(self, x, c, act):
        y = self.put("Transpose", [self.conv(x, c, c, 7, groups=c)], perm=[0, 2, 3, 1])
        y = self.put("LayerNormalization", [y, self.store(np.ones(c)), self.store(np.zeros(c))], axis=-1)
        y = self.linear(self.act(self.linear(y, c, 4 * c), "gelu_erf" if act == "prelu" else act), 4 * c, c)
        y = self.put("Mul", [y, self.store(self.rng.uniform(0.3, 1, c))])
        return self.put("Add", [x, self.put("Transpose", [y], perm=[0, 3, 1, 2])]), c

    def _resampled(self, x, c, act):
        y = self.act(self.conv(x, c, 4 * c, 1), act, 4 * c)
        y = self.put("DepthToSpace", [y], blocksize=2)
        y = self.put("Slice", [y, self.store([0], np.int64), self.store([-2], np.int64), self.store([2], np.int64)])
        scales = self.store([1, 1, 0.5, 0.5])
        return self.act(self.conv(self.put("Resize", [y, "", scales], mode="nearest"), c, c), act, c), c

    def side(self, x: str) -> int:
        model = self.model(x, checked=False)
        shapes = {value.name: value.type.tensor_type.shape.dim for value in (*model.graph.value_info, *model.graph.output)}
        return shapes[x][2].dim_value

    def head(self, kind: str, x: str, c: int, act: str, classes: int = 10) -> str:
        if kind == "no_layer":
            x = self.act(self.conv(x, c, classes, 1), "relu")
            return self.put("Flatten", [self.put("GlobalAveragePool", [x])])
        if kind == "reduce_mean":
            pooled = self.put("ReduceMean", [x, self.store([2, 3], np.int64)], keepdims=0)
            return self.linear(pooled, c, classes, "Gemm")
        pooled = self.put("GlobalAveragePool", [x])
        if kind == "conv":
            return self.put("Flatten", [self.conv(pooled, c, classes, 1)])
        if kind == "mlp":
            pooled, c = self.act(self.conv(pooled, c, 2 * c, 1), act, 2 * c), 2 * c
        logits = self.linear(self.put("Flatten", [pooled]), c, classes, "MatMul" if kind == "matmul" else "Gemm")
        return self.put("Softmax", [logits], axis=-1) if kind == "softmax" else logits

    def model(self, output: str, *, checked: bool = True) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, self.size, self.size])]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, self.stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        if checked:
            onnx.checker.check_model(model)
        return model


def network(blocks, act: str, head: str, seed: int = 0, channels: int = 16, size: int = 32) -> tuple[onnx.ModelProto, list[str]]:
    """Return a network of blocks and the names of its layers with weights outside attention."""
    net = Network(seed, size)
    x = net.act(net.conv("images", 3, channels, 3, 2), act, channels)
    width = channels
    for kind in blocks:
        x, width = net.block(kind, x, width, act)
    return net.model(net.head(head, x, width, act)), net.layers


def pictures(count: int, size: int = 32, seed: int = 1) -> np.ndarray:
    """Return smooth random pictures, (count, 3, size, size) float32, normalised like usual images."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (count, 3, 5, 5))
    grid = np.linspace(0, 3.999, size)
    low, part = grid.astype(int), grid - grid.astype(int)
    rows = coarse[:, :, low] * (1 - part[:, None]) + coarse[:, :, low + 1] * part[:, None]
    smooth = rows[..., low] * (1 - part) + rows[..., low + 1] * part
    return ((smooth + 0.05 * rng.standard_normal(smooth.shape) - 0.45) / 0.25).astype(np.float32)
