"""The tolerance of fp16, and the emulation that is compared with it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from refusals import refusing

from emca_deploy.errors import GateError
from emca_deploy.exporting.half import to_half
from emca_deploy.exporting.half_parity import HALF_ROUNDOFF, check_half, emulated, half_tolerance, peaks_and_outputs, roundings
from emca_deploy.exporting.parity import run_onnx

IMAGES = np.random.default_rng(0).standard_normal((5, 3, 2, 2)).astype(np.float32)


def model_of(body, constants="", batch="N"):
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    net (float[{batch},3,2,2] images) => (float[{batch},12] logits) <{constants}> {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for node in proto.graph.node:
        node.name = node.output[0]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


BODY = "a = Conv(images, c) b = Relu(a) d = Add(b, images) e = Mul(d, d) logits = Flatten(e)"
CONSTANTS = "float[3,3,1,1] c = {0.1, 0.7, -0.3, 0.9, 0.33, 1.1, -0.77, 0.2, 0.4}"


@pytest.fixture(params=["N", "2"])
def half(request):
    model = model_of(BODY, CONSTANTS, request.param)
    to_half(model, {model.graph.node("e"): "no convolution"})
    return model


def test_roundings_are_those_of_the_longest_way(half):
    # the image, the convolution's weights and result, the sum; not ReLU and not layers in float32
    assert roundings(half.graph) == 1 + 2 + 1 + 1  # Flatten reads a rounded input


def test_emulation_rounds_what_is_fp16_bit_for_bit(half):
    (found,) = run_onnx(ir.to_proto(emulated(half)).SerializeToString(), IMAGES)

    def rounded(x):
        return x.astype(np.float16).astype(np.float32)

    images, weights = rounded(IMAGES), rounded(np.array([0.1, 0.7, -0.3, 0.9, 0.33, 1.1, -0.77, 0.2, 0.4], np.float32))
    a = rounded(np.einsum("oc,nchw->nohw", weights.reshape(3, 3), images).astype(np.float32))
    d = rounded(np.maximum(a, 0) + images)
    np.testing.assert_array_equal(found, rounded(d * d).reshape(5, 12))
    (runtime,) = run_onnx(ir.to_proto(half).SerializeToString(), IMAGES)
    assert np.abs(runtime - d.reshape(5, 12) ** 2).max() > 0  # ONNX Runtime does not round: it cannot show errors of fp16


def test_emulation_overflows_as_fp16_does():
    model = model_of("a = Conv(images, c) b = Mul(a, a) d = Sqrt(b) logits = Flatten(d)", CONSTANTS)
    to_half(model, {})
    (found,) = run_onnx(ir.to_proto(emulated(model)).SerializeToString(), np.full((1, 3, 2, 2), 400, np.float32))
    assert np.isinf(found).any()
    (runtime,) = run_onnx(ir.to_proto(model).SerializeToString(), np.full((1, 3, 2, 2), 400, np.float32))
    assert np.isfinite(runtime).all()


def test_peaks_are_those_of_each_tensor():
    model = model_of(BODY, CONSTANTS, "2")
    peaks, outputs = peaks_and_outputs(model, IMAGES)
    (logits,) = outputs.values()
    assert logits.shape == (5, 12)
    assert peaks.keys() == {"a", "b", "d", "e", "logits"}
    assert peaks["e"] == peaks["logits"] == np.abs(logits).max()
    assert peaks["d"] == pytest.approx(np.sqrt(peaks["e"]))
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Add", "Mul", "Flatten"]  # not changed


@pytest.mark.parametrize("count", [1, 50, 500])
def test_random_roundings_stay_within_the_tolerance_which_is_not_vacuous(count):
    deltas = np.random.default_rng(count).uniform(-HALF_ROUNDOFF, HALF_ROUNDOFF, (2000, count))
    errors = np.abs(np.prod(1 + deltas, axis=1) - 1)
    tolerance = half_tolerance(count, len(errors))
    assert tolerance / 10 < errors.max() < tolerance
    assert half_tolerance(count, 1) < tolerance < half_tolerance(count + 1, len(errors))


def test_the_gate_refuses_wrong_logits_and_none(half):
    _, outputs = peaks_and_outputs(model_of(BODY, CONSTANTS), IMAGES)
    (logits,) = outputs.values()
    parity, gate = check_half(half, IMAGES, logits)
    assert 0 < parity.max_rel < gate
    for wrong in (logits * 1.1, logits * np.nan):
        with refusing(GateError, "fp16"):
            check_half(half, IMAGES, wrong)
    with refusing(GateError, "fp16", "1e-09"):
        check_half(half, IMAGES, logits, 1e-9)
