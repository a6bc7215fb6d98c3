"""Layers read from the logs of three generations of builders."""

import json
from dataclasses import asdict

from emca_deploy.backends.tensorrt.inspect import int8_convolutions, moved_bytes_by_type, read_layers

RTX = """Layers:
Name: __mye28_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: 
Name: conv1_U72_myl0_5, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [-1,64,16,16], Strides: [16384,1,1024,64], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [ { Name: w, Dimensions: [64,64,3,3], Strides: [576,1,192,64], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], Outputs: [ { Name: b, Dimensions: [-1,64,16,16], Strides: [16384,1,1024,64], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: conv1][ONNX Layer: stem.pool/dequantize]
Name: conv2, LayerType: correlation, Inputs: [ { Name: b, Dimensions: [-1,64,16,16], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }, { Name: c, Dimensions: [-1,64,16,16], Strides: [1], StrideOrder: [0], Datatype: Half, Format: (Linear) Row major linear format }], Constants: [], Outputs: [ { Name: d, Dimensions: [-1,64,16,16], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], TacticName: x, StreamId: 0, Metadata: [ONNX Layer: conv2]
Name: pointwise, LayerType: kgen, Inputs: [ { Name: d, Dimensions: [-1,64], Strides: [64,1], StrideOrder: [1,0], Datatype: Int8, Format: (Linear) Row major linear format }], Constants: [], Outputs: [ { Name: e, Dimensions: [-1,64], Strides: [64,1], StrideOrder: [1,0], Datatype: Int64, Format: (Linear) Row major linear format }], TacticName: y, StreamId: 0, Metadata: 

I/O Tensors:
 Name: images, IOMode: Input, DataType: Float, Dimensions: [-1,3,64,64], Location: Device, IsShapeInferenceIO: false
"""  # noqa: E501, W291

TENSORRT_10 = """Layers:
Name: conv1.weight + QuantizeLinear_7 + Conv_9, LayerType: CaskConvolution, Inputs: [ { Name: in, Location: Device, Dimensions: [32,3,224,224], Format/Datatype: Thirty-two wide channel vectorized row major Int8 format }], Outputs: [ { Name: out, Location: Device, Dimensions: [32,64,112,112], Format/Datatype: Row major linear FP32 }], ParameterType: Convolution, Kernel: [7,7], TacticName: sm80, StreamId: 0, Metadata: [ONNX Layer: Conv_9]
Name: __myl_GathMul, LayerType: kgen, Inputs: [ { Name: ids, Dimensions: [1,40], Format/Datatype: Int32 }, { Name: table, Dimensions: [8,40], Format/Datatype: Half }], Outputs: [ { Name: sum, Dimensions: [1,40], Format/Datatype: Half }], TacticName: z, StreamId: 0, Metadata: 
"""  # noqa: E501, W291

TENSORRT_8 = """Engine Layer Information:
Layer(Reformat): Reformatting CopyNode for Input Tensor 0 to c, Tactic: 0x0000000000000000, images (Float[1,3,8,8]) -> a (Int8[1,3:4,8,8])
Layer(CaskConvolution): weight + QuantizeLinear_461 + Conv_463, Tactic: 0x91a0ba608d3e9886, 1305 (Int8[1,64,200,200]), 7 (Int8[1,64,200,200]) -> b (Half[1,2,200,200])
Layer(CaskDeconvolution): up, Tactic: -123, b (Int8[1,2,4,4]) -> c (Int8[1,2,8,8])
"""  # noqa: E501


def test_tensorrt_rtx() -> None:
    layers = read_layers(RTX.splitlines())
    assert [layer.kind for layer in layers] == ["shape_call", "correlation", "correlation", "kgen"]
    assert int8_convolutions(layers) == 1
    first, second, last = layers[1:]
    assert (first.name, first.nodes) == ("conv1_U72_myl0_5", ("conv1", "stem.pool/dequantize"))
    assert [tensor.dtype for tensor in (*first.inputs, *first.outputs)] == ["int8", "float32"]
    assert first.moved_bytes == 64 * 16 * 16 * (1 + 4)
    assert [tensor.name for tensor in second.inputs] == ["b", "c"]
    assert second.moved_bytes == 64 * 16 * 16 * (4 + 2 + 4)
    assert last.is_int8
    assert not last.is_convolution
    assert last.moved_bytes == 64 * (1 + 8)


def test_tensorrt_10() -> None:
    conv, gather = read_layers(TENSORRT_10.splitlines())
    assert (conv.kind, conv.inputs[0].dtype, conv.outputs[0].dtype) == ("CaskConvolution", "int8", "float32")
    assert conv.inputs[0].shape == (32, 3, 224, 224)
    assert int8_convolutions([conv, gather]) == 1
    assert [tensor.dtype for tensor in (*gather.inputs, *gather.outputs)] == ["int32", "float16", "float16"]


def test_tensorrt_8() -> None:
    reformat, conv, deconv = read_layers(TENSORRT_8.splitlines())
    assert [tensor.dtype for tensor in conv.inputs] == ["int8", "int8"]
    assert conv.outputs[0].dtype == "float16"
    assert conv.is_convolution
    assert not reformat.is_convolution
    assert not deconv.is_convolution
    assert int8_convolutions([reformat, conv, deconv]) == 1


def test_other_lines_are_no_layers() -> None:
    assert read_layers(["", "I/O Tensors:", "Layer: x Host Persistent: 80 bytes", "Name: images, IOMode: Input"]) == []


def test_layers_are_read_as_before(golden) -> None:
    lines = f"{RTX}{TENSORRT_10}{TENSORRT_8}".splitlines()
    lines.append("Layer(Odd): x, Tactic: 1, a (Foo[1,2000000000000,3]), (Int8[1]) -> b (Bool[7,])")
    lines.append("Name: cut, LayerType: kgen, Inputs: [], Outputs: [ { Name: d, Dimensions: [1]")
    layers = read_layers(lines)
    assert moved_bytes_by_type(layers) == {
        dtype: sum(tensor.image_bytes for layer in layers for tensor in (*layer.inputs, *layer.outputs) if tensor.dtype == dtype)
        for dtype in {tensor.dtype for layer in layers for tensor in (*layer.inputs, *layer.outputs)}
    }
    golden("trtexec/layers", json.loads(json.dumps([{**asdict(layer), "moved": layer.moved_bytes} for layer in layers])))
