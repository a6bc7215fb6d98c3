"""The findings about quantized models in words: the problem and the remedy."""

__all__ = ["CALIBRATE", "FINDINGS"]

CALIBRATE = "calibrate the float model that it was made from: emca-deploy calibrate MODEL.onnx --backend {backend}"

FINDINGS: dict[str, tuple[str, str]] = {
    "integer_operator": (
        "integer operators such as QLinearConv belong to ONNX Runtime; {backend} computes them in float or refuses them",
        "quantize in Q/DQ form (quant_format=QuantFormat.QDQ), run it on onnxruntime, or " + CALIBRATE,
    ),
    "wide_types": (
        "is not quantized to 8 bits; {backend} has no other integer kernel and computes it in float",
        "quantize activations to uint8 and weights to int8, or " + CALIBRATE,
    ),
    "activation_scales": (
        "reads an activation with a scale for each channel, which no INT8 kernel takes; it computes in float",
        "give activations one scale each, and weights one for each output channel",
    ),
    "asymmetric_weights": (
        "has weights that are not symmetric int8; {backend} computes it in float or refuses it",
        "quantize weights to int8 with zero point 0 (weight_type=QuantType.QInt8, WeightSymmetric), or " + CALIBRATE,
    ),
    "asymmetric_activations": (
        "reads activations that are not symmetric int8, which {backend} does not take",
        "quantize activations to int8 with zero point 0 (ActivationSymmetric), or " + CALIBRATE,
    ),
    "integer_bias": (
        "has an INT32 bias behind a DequantizeLinear, which {backend} refuses",
        "leave biases in float (QuantizeBias=False), or " + CALIBRATE,
    ),
    "float_layer": (
        "is not quantized and computes in float, between conversions",
        "quantize its input and its weights, or " + CALIBRATE,
    ),
    "quantized_behind": (
        "reads float, while its weights and its result are quantized: a Q/DQ pair follows it, but none precedes it",
        "quantize its input, or " + CALIBRATE,
    ),
    "float_weights": ("reads INT8, but its weights are float", "quantize its weights, or " + CALIBRATE),
    "float_bias": (
        "has a float bias; {backend} has an INT8 product only for INT32 biases behind a DequantizeLinear",
        "quantize biases to INT32, in steps of the input's scale times the weights', or " + CALIBRATE,
    ),
    "signed_activations": (
        "reads or returns int8 activations; on x86 {backend} turns those with one reader into uint8, and computes in float "
        "between the two kinds",
        "quantize activations to uint8 (activation_type=QuantType.QUInt8), or " + CALIBRATE,
    ),
    "float_result": (
        "returns float to what follows; {backend} has no INT8 convolution that does",
        "quantize its result for everything that reads it, or " + CALIBRATE,
    ),
    "zero_point_beside_relu": (
        "is followed by a ReLU and a Q whose smallest integer is not 0; the ReLU stays, and both compute in float",
        "quantize activations to uint8, whose zero point is 0 behind a ReLU (activation_type=QuantType.QUInt8), or " + CALIBRATE,
    ),
    "no_kernel": ("{backend} has no INT8 kernel for it, and computes it in float between conversions", "leave it in float"),
    "float_island": (
        "computes in float between a DQ and a Q: its input is converted to float, and its result to integers again",
        "quantize all its inputs, or use an operator that {backend} has in INT8; or " + CALIBRATE,
    ),
    "quantized_before_activation": (
        "reads a Q/DQ pair directly after a layer: half of the integers represent values that it cuts off, and nothing is fused",
        "quantize after it, not before it; or " + CALIBRATE,
    ),
    "run_time_ranges": (
        "its ranges are measured for each image at run time",
        "quantize statically, with calibration images; or " + CALIBRATE,
    ),
    "saturation": (
        "has weights of 8 bits; this processor has no VNNI, adds such products in 16 bits and saturates: results are wrong",
        "quantize weights to 7 bits (reduce_range=True; --weight-bits 7), or run it on a processor with VNNI",
    ),
    "per_tensor_weights": (
        "has one scale for the weights of all output channels, which costs accuracy but no time",
        "quantize weights for each output channel (per_channel=True), or " + CALIBRATE,
    ),
}
"""Problems and remedies by kind, the worst for speed first."""
