"""Numbers of images, limits and formulas of calibration, on small networks and by hand."""

import threading
from contextlib import contextmanager

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from refusals import refusing

from emca_deploy._progress import silent
from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration import float_part
from emca_deploy.calibration.calibrate import calibrate_model, ensure_ranges
from emca_deploy.calibration.graphs.graph_session import GraphSession, few_of, in_order
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.graphs.weighted_layers import image_multiply_adds, output_axis
from emca_deploy.calibration.options import CalibrationChoices, CalibrationOptions
from emca_deploy.calibration.placement.calibration_cache import cache_version
from emca_deploy.calibration.placement.coverage import Coverage, FloatLayer
from emca_deploy.calibration.placement.quantize import quantize_with
from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.registry import parse_method
from emca_deploy.calibration.ranges.observers import Observation
from emca_deploy.calibration.ranges.table import read_table
from emca_deploy.calibration.recovery.bias_correction import Anchor, BiasCorrection, _shift
from emca_deploy.calibration.sensitivity import SensitivityOptions, _compare
from emca_deploy.errors import GateError, InputError, ModelError, OutputError
from emca_deploy.tasks.logits import LogitsNoise
from zoo.recipes import RECIPES, calibration_options


def test_defaults_are_those_that_help_states():
    own = CalibrationChoices()
    assert (own.method, own.samples, own.seed, own.recover, own.float_precision) == ("auto", 300, 0, "weights", "fp32")
    assert CalibrationOptions(RECIPES["openvino"], ()).threads == 1
    study = SensitivityOptions(RECIPES["openvino"])
    assert (study.samples, study.seed, study.threads) == (64, 0, 1)


def test_few_images_are_spread_over_all():
    assert few_of(range(10), 3) == [0, 3, 6]
    assert few_of(range(75), 64)[::16] == [0, 18, 37, 56]
    assert few_of(range(75), 64)[-1] == 73
    assert few_of(range(5), 64) == [0, 1, 2, 3, 4]


def test_trials_use_40_images_and_biases_100(small, pictures, tmp_path):
    told = {}

    @contextmanager
    def stage(name):
        yield lambda done, whole: told.setdefault(name, []).append((done, whole))

    options = calibration_options("tensorrt", table=tmp_path / "t.json", recover="none", float_precision="fp16")
    made = calibrate_model(small, pictures(300), tmp_path / "int8.onnx", options, stage)
    assert told["measuring ranges"][-1] == (300, 300)
    assert told["comparing with fp32"][-1] == (4 * 40, 4 * 40)
    assert made.float_part.images == 64
    assert made.to_dict()["sqnr_db"] == {name: round(value, 2) for name, value in made.choice.sqnr_db.items()}
    assert made.to_dict()["samples"] == 300
    correction = BiasCorrection(ir.load(small), lambda floating: None, pictures(300), range(300), 1)
    assert sum(map(len, correction._images)) == 100


def noise(*decibels):
    return LogitsNoise(np.ones(len(decibels)), 10 ** (-np.array(decibels, float) / 10))


def test_a_shift_leaves_out_a_tenth_on_both_sides_and_is_divided_by_what_passes():
    means = np.arange(20.0)[:, None] ** 2
    wanted = {"x": means, "x/active": np.full((20, 1), 0.5), "gate": np.full((20, 1), 0.25)}
    trimmed = np.sort(means.ravel())[2:18].mean()
    zero = np.zeros((20, 1))
    assert _shift(Anchor("x"), wanted, zero) == pytest.approx(trimmed)
    assert _shift(Anchor("x", cut=True), wanted, zero) == pytest.approx(trimmed / 0.5)
    assert _shift(Anchor("x", gate="gate"), wanted, zero) == pytest.approx(trimmed / 0.25)
    closed = {**wanted, "x/active": np.full((20, 1), 0.01), "gate": np.full((20, 1), 0.01)}
    assert _shift(Anchor("x", cut=True), closed, zero) == pytest.approx(trimmed / 0.3)
    assert _shift(Anchor("x", gate="gate"), closed, zero) == pytest.approx(trimmed / 0.05)


@pytest.mark.parametrize(
    ("int8_db", "mixed_db", "refused"),
    [(30.0, 27.1, False), (30.0, 26.9, True), (None, 60.0, True), (30.0, None, False), (None, None, False), (20.0, 40.0, False)],
)
def test_a_float_part_may_cost_three_decibels(small, pictures, monkeypatch, int8_db, mixed_db, refused):
    found = iter([int8_db, mixed_db])
    monkeypatch.setattr(float_part, "signal_to_noise_db", lambda reference, logits: next(found))
    monkeypatch.setattr(float_part, "to_half_quantized", lambda model, keep: None)
    monkeypatch.setattr(float_part, "emulated", lambda model: model)
    call = (ir.load(small), {}, (ir.load(small), pictures(4), range(4), 1), silent)
    if refused:
        with pytest.raises(GateError):
            float_part.halve_float_part(*call)
        return
    made = float_part.halve_float_part(*call)
    assert (made.sqnr_db, made.same_class_percent, made.images) == ({"fp32": int8_db, "fp16": mixed_db}, 100.0, 4)


def test_workers_end_when_nobody_wants_more_results():
    begun, done = threading.Event(), []

    def work(item):
        begun.set()
        threading.Event().wait(0.02)
        done.append(item)
        return item

    results = in_order(work, range(100), 2)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("calibrate")]
    assert len(done) <= 5


def graph_of(body: str, result: str, sides: str = "3,4,4") -> ir.Model:
    text = f'<ir_version: 8, opset_import: ["" : 17]> net (float[n,{sides}] images) => ({result} logits) {{ {body} }}'
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))


def test_logits_are_rows_of_finite_numbers(images):
    shown = type(images)(np.ones((3, 3, 4, 4), np.float32))

    def logits(body, result):
        model = graph_of(body, result)
        return Simulation(model.graph, shown, range(3), 1).logits(model)

    assert logits("logits = GlobalAveragePool(images)", "float[n,3,1,1]").tolist() == [[1, 1, 1]] * 3
    with pytest.raises(ModelError):
        logits("p = GlobalAveragePool(images) f = Flatten(p) z = Sub(f, f) logits = Log(z)", "float[n,3]")
    with pytest.raises(ModelError):
        logits("p = GlobalAveragePool(images) s = Constant<value_ints=[3]>() logits = Squeeze(p, s)", "float[n,3,1]")


@pytest.mark.parametrize(("side", "remedy"), [(5, "size"), (4, "checker")])
def test_a_failing_run_says_whether_the_size_is_wrong(side, remedy):
    model = graph_of("f = Flatten(images) s = Constant<value_ints=[1,7]>() logits = Reshape(f, s)", "float[1,7]")
    session = GraphSession(model, 1)
    with pytest.raises(ModelError) as caught:
        session.run({"images": np.zeros((1, 3, side, side), np.float32)})
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("layer", "axis", "macs"),
    [
        ("Gemm <transB = 1> (f, w)", 0, 4 * 12),
        ("Gemm (f, v)", 1, 4 * 12),
        ("MatMul (f, v)", -1, 4 * 12),
    ],
)
def test_axis_of_outputs_and_multiply_adds_of_linear_layers(layer, axis, macs):
    zeros = ",".join(["0"] * 48)
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[n,3,2,2] images) => (float[n,4] logits) <float[4,12] w = {{{zeros}}}, float[12,4] v = {{{zeros}}}>
    {{ f = Flatten(images) logits = {layer} }}"""
    node = list(ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))).graph)[-1]
    assert (output_axis(node), image_multiply_adds(node)) == (axis, macs)


@pytest.mark.parametrize(("text", "digits"), [("9.9.9", "9909"), ("10.1", "100100"), ("10.12", "101200"), ("10.16.1", "101601")])
def test_versions_in_a_cache(text, digits):
    assert cache_version(text) == digits


@pytest.mark.parametrize("text", ["10.0", "10.13", "9.1", "11.0.0", "12.1", "12", "1234567"])
def test_versions_that_no_cache_names(text):
    with refusing(InputError, text):
        cache_version(text)


@pytest.mark.parametrize(("percent", "warned"), [(89.9, 1), (90.0, 0)])
def test_less_than_nine_tenths_in_int8_is_a_warning_with_the_heaviest_reasons(percent, warned):
    layers = [
        FloatLayer(f"{reason}{n}", "Conv", reason, macs)
        for reason, macs in zip("abcd", (1, 9, 5, 7), strict=True)
        for n in (0, 1)
    ]
    warnings = Coverage("openvino", 9, 1, percent, tuple(layers)).warnings
    assert len(warnings) == warned
    if warned:
        named = warnings[0].split("in float: ")[1]
        assert named == "b0 and 1 more: Conv (b); d0 and 1 more: Conv (d); c0 and 1 more: Conv (c)"
        assert "89.9%" in warnings[0]


def test_integers_of_weights_end_at_127():
    assert quantize_with(np.array([[-9.0, 2.0, 0.011]], np.float32), np.array([0.01], np.float32), 0).tolist() == [[-127, 127, 1]]


def test_bins_of_a_histogram_are_the_files_too():
    one, none = Histogram.of(np.array([1.0], np.float32)), Histogram.of(np.array([0.0], np.float32))
    assert (one.counts.size, one.exponent, none.exponent) == (8191, -11, -120)
    for exponent in (-121, 129):
        with pytest.raises(ValueError, match="out of range"):
            Histogram.unpacked({**one.packed, "exponent": exponent}, 0.0, 1.0)


def drawn(kind):
    normal = np.random.default_rng(7).standard_normal(20_000)
    return {"normal": normal, "relu": np.maximum(normal, 0), "tail": np.sign(normal) * np.abs(normal) ** 3}[kind].astype(
        np.float32
    )


RANGES = {
    ("percentile:99", "normal"): (-2.30859, 2.30273, 2.56641),
    ("entropy", "normal"): (-3.66108, 4.06161, 4.06161),
    ("mse", "normal"): (-3.48947, 3.87122, 3.83949),
    ("percentile:99", "relu"): (0, 2.30273, 2.30273),
    ("entropy", "relu"): (0, 3.625, 3.625),
    ("mse", "relu"): (0, 3.99814, 3.96641),
    ("percentile:99", "tail"): (-12.3125, 12.1875, 16.9062),
    ("entropy", "tail"): (-31.25, 31.25, 31.25),
    ("mse", "tail"): (-46.7712, 64.909, 62.8152),
}


@pytest.mark.parametrize("method", ["percentile:99", "entropy", "mse"])
@pytest.mark.parametrize("kind", ["normal", "relu", "tail"])
def test_ranges_of_known_data(method, kind):
    histogram = Histogram.of(drawn(kind))
    found = parse_method(method).range_of(Observation(histogram.minimum, histogram.maximum, histogram))
    assert (found.minimum, found.maximum, found.threshold) == pytest.approx(RANGES[method, kind], rel=1e-5)


def test_averages_of_the_default_momentum_and_of_none():
    for text, expected in (("moving-average", 0.9 * 0.9 * 1 + 0.9 * 0.1 * 2 + 0.1 * 5), ("moving-average:0", 5)):
        method = parse_method(text)
        observer = method.observer()
        for value in (1, 2, 5):
            observer.observe(np.array([-value], np.float32), np.array([value], np.float32))
        found = method.range_of(observer.observation())
        assert (found.minimum, found.maximum) == pytest.approx((-expected, expected))


@pytest.mark.parametrize("text", ["percentile:49.9", "percentile:100.1", "moving-average:1", "moving-average:-0.1"])
def test_parameters_out_of_bounds(text):
    with refusing(InputError, text):
        parse_method(text)


@pytest.mark.parametrize("text", ["percentile:50", "percentile:100", "moving-average:0", "moving-average:0.999"])
def test_parameters_at_the_bounds(text):
    assert parse_method(text).parameter == float(text.split(":")[1])


def test_ranges_of_another_method_replace_those_on_file(small, pictures, tmp_path):
    shown = pictures(4)
    _, path, _ = ensure_ranges(small, shown, calibration_options("openvino", "mse"))
    table, _, reused = ensure_ranges(small, shown, calibration_options("openvino", "percentile"))
    assert reused
    assert read_table(path).key.method == table.key.method == "percentile:99.99"
    with pytest.raises(OutputError):
        ensure_ranges(small, shown, calibration_options("openvino", "mse", table=tmp_path / "absent" / "t.json"))
    with pytest.raises(OutputError):
        calibrate_model(small, shown, tmp_path / "absent" / "int8.onnx", calibration_options("openvino", "mse"))


def test_a_comparison_counts_images_of_another_class(images):
    shown = type(images)(np.ones((4, 3, 4, 4), np.float32))
    simulation = Simulation(graph_of("logits = GlobalAveragePool(images)", "float[n,3,1,1]").graph, shown, range(4), 1)
    reference = np.array([[0, 1], [0, 1], [1, 0], [1, 0]], np.float32)
    cost = _compare(simulation, reference, reference[[2, 1, 2, 3]], "net")
    assert cost.flips_percent == 25.0
    with pytest.raises(ModelError):
        _compare(simulation, np.zeros((2, 2), np.float32), reference[:2], "net")


@pytest.mark.parametrize("backend", sorted(RECIPES))
def test_recipes_are_of_eight_bits_unless_they_are_for_a_processor_that_saturates(backend):
    recipe = find_recipe(backend, 8)
    assert (recipe.weight_bits, recipe.largest_weight, recipe.on_cpu) == (8, 127, not backend.startswith("tensorrt"))
