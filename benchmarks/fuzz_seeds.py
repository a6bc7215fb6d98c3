"""Valid inputs of the parsers in `fuzz_targets`."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "tests/unit/results/documents"
BOARDS = ROOT / "tests/data/boards"

TRTEXEC_LOG = b"""&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx
[11/28/2024-17:03:11] [I] Engine built in 12.5 sec.
[11/28/2024-17:03:11] [I] [TRT] [MemUsageChange] Init CUDA: CPU +1, GPU +0, now: CPU 20, GPU 129 (MiB)
[11/28/2024-17:03:11] [W] [TRT] a warning
[11/28/2024-17:03:11] [I] Warmup completed 20 queries over 200 ms
[11/28/2024-17:03:11] [I] Timing trace has 300 queries over 3 s
[11/28/2024-17:03:11] [I] Throughput: 27207.5 qps
[11/28/2024-17:03:11] [I] Latency: min = 7.2 ms, max = 10.1 ms, mean = 7.4 ms, median = 7.3 ms, percentile(99%) = 8 ms
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx
"""
DLA_LOG = b"""[I] [TRT] ---------- Layers Running on DLA ----------
[I] [TRT] [DlaLayer] {ForeignNode[conv1...relu9]}
[I] [TRT] ---------- Layers Running on GPU ----------
[I] [TRT] [GpuLayer] CONVOLUTION: conv10 + relu10
[I] [TRT] [GpuLayer] SHUFFLE: reformat(a, b)
[W] [TRT] Layer 'softmax' (SOFTMAX): Unsupported on DLA. Switching this layer's device type to GPU.
[W] [TRT] Default DLA is enabled but layer head is not supported on DLA, falling back to GPU.
"""
LAYERS = (
    b"Name: conv1 + relu1, LayerType: CaskConvolution, Inputs: [ { Name: input, Location: Device, Dimensions: [1,3,32,32], "
    b"Format/Datatype: Row major linear FP32 }], Constants: [], Outputs: [ { Name: r1, Location: Device, "
    b"Dimensions: [1,8,16,16], Format/Datatype: Int8 NC/32HW32 }], Metadata: [ONNX Layer: conv1]\n"
    b"Layer(CaskConvolution): conv2, Tactic: 0x1, in1[Float(1,8,16,16)] -> out1[Int8(1,8,16,16)]\n"
)
TIMES = b'[{ "startEnqMs" : 0.1, "latencyMs" : 7.1, "computeMs" : 7.0, "h2dMs" : 0.05, "d2hMs" : 0.05 }]'
PROFILE = b"""[
  { "count" : 100 }
, { "name" : "conv1 + relu1", "timeMs" : 10.5, "averageMs" : 0.105, "medianMs" : 0.104, "percentage" : 60.5 }
, { "name" : "he said "hi"", "timeMs" : 5.5, "averageMs" : 0.055, "percentage" : 39.5 }
]
"""
LAYER_INFO = json.dumps(
    {"Layers": [{"Name": "a", "LayerType": "Conv", "Inputs": [{"Name": "x", "Format/Datatype": "INT8"}], "Outputs": []}, "b"]}
).encode()
ORT_PROFILE = json.dumps(
    [
        {"cat": "Node", "name": "conv1_kernel_time", "dur": 12, "ts": 1, "args": {"op_name": "Conv", "provider": "CPU"}},
        {"cat": "Session", "name": "model_run", "dur": 20, "ts": 1, "args": {}},
    ]
).encode()
SSH = b"ssh: connect to host box port 22: Connection refused\r\nHost key verification failed.\r\n"
TOML = b'[orin]\ntarget = "ssh://me@orin.local/gpu"\npower_mode = "MAXN"\nnotes = "x"\n\n[box]\nhost = "me@box"\nkind = "cpu"\n'
PLAN = b"""models = ["model.onnx", "resnet18"]
image_size = [64, "96x64"]
precision = ["fp32", "int8"]
threads = 1
data = "calibration/"
samples = "auto"
[measure]
duration = "90s"
telemetry = false
[preprocessing]
mean = [0.5, 0.5, 0.5]
[[include]]
scenario = "offline"
[[exclude]]
models = "*18"
batch = 8
"""


def recorded(name: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(BOARDS.rglob(name)) if path.is_file()) or (b"",)


def old(command: str) -> bytes:
    """Return the JSON document of a command in version 1."""
    return (RESULTS / f"{command}-v1.json").read_bytes()


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def network() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "head": (5, 4)}
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["a2"], "add2"),
        helper.make_node("HardSigmoid", ["a2"], ["h2"], "gate2"),
        helper.make_node("Mul", ["a2", "h2"], ["m2"], "mul2"),
        helper.make_node("GlobalAveragePool", ["m2"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "head"], ["logits"], "head", transB=1),
    ]
    stored = [numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name) for name, shape in shapes.items()]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, stored), opset_imports=[helper.make_opsetid("", 20)])
    return bytes(model.SerializeToString())


def torch_zip() -> bytes | None:
    try:
        import torch
    except ImportError:
        return None
    out = io.BytesIO()
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(3)}, "epoch": 3}, out)
    return out.getvalue()
