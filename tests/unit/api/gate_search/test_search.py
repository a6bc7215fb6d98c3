"""The accuracy-gated search on a small network, degraded by clipping ranges and few images."""

import json
from contextlib import contextmanager
from dataclasses import replace

import in_process
import numpy as np
import onnx
import pytest
from refusals import refusing

from emca_deploy.api.gate_search import search
from emca_deploy.api.gate_search.search import AccuracyGate, calibrate_within
from emca_deploy.artifacts import read_manifest
from emca_deploy.errors import DataError, OutputError
from emca_deploy.harness.accuracy.collection import LogitsRun
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.results.codec import to_json
from zoo.networks import NETWORKS, to_onnx
from zoo.quantizing import Images
from zoo.quantizing import run as logits_of
from zoo.recipes import RECIPES, calibration_options

IMAGES = 100
OWN = ("stem*",)
"""Parts that the user keeps in float."""
HOPELESS = 4.0
"""Gate in points: wider than the narrowest interval on so few images, and far below the cost of these ranges."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module", autouse=True)
def in_threads():
    with pytest.MonkeyPatch.context() as patch:
        in_process.use_threads(patch)
        yield


@pytest.fixture(scope="module")
def model(folder):
    """A network that predicts its ten classes about equally often: the logits have equal means and deviations."""
    proto = to_onnx(NETWORKS["residual"])
    onnx.save(proto, folder / "model.onnx")
    logits = logits_of(folder / "model.onnx", Images(200, seed=3).images)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    weight, bias = (onnx.numpy_helper.to_array(constants[f"head.{name}"]) for name in ("weight", "bias"))
    deviation = logits.std(axis=0)
    changed = {"head.weight": weight / deviation[:, None], "head.bias": (bias - logits.mean(axis=0)) / deviation}
    for name, array in changed.items():
        constants[name].CopyFrom(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def images():
    return Images(8, seed=1)


@pytest.fixture(scope="module")
def validation(folder, model):
    """Images labelled with the network's own predictions."""
    images = Images(IMAGES, seed=7).images
    path = folder / "val.npz"
    np.savez(path, images=images, labels=logits_of(model, images).argmax(axis=1))
    return path


@pytest.fixture(scope="module")
def options():
    return calibration_options("onnxruntime", "percentile:80", samples=8, recover="none", keep_float=OWN)


@pytest.fixture(scope="module")
def gate(validation):
    return AccuracyGate(HOPELESS, validation, samples=2, duration_s=0.1)


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "int8.onnx"


@pytest.fixture(scope="module")
def hopeless(model, images, options, gate, folder):
    """A whole search for an unreachable gate; other tests reuse its side files."""
    (folder / "out").mkdir()
    return calibrate_within(model, images, folder / "out" / "int8.onnx", options, gate)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_gate_out_of_reach_ends_with_the_best_model_and_says_why(hopeless, model, validation):
    calibration, report = hopeless
    assert not report.reached
    assert report.reason
    assert report.images == IMAGES
    assert (report.measured_with, report.simulated) == ("onnxruntime", False)
    assert report.steps[0].kept_float == ()
    assert len(report.steps) > 2
    macs = [step.float_macs_percent for step in report.steps]
    assert macs == sorted(macs)
    assert 0 < macs[-1] <= 75
    uppers = [step.top1_drop_ci95[1] for step in report.steps]
    assert uppers[report.chosen] == min(uppers) < uppers[0]
    assert report.slowdown > 0.5
    assert names(calibration.onnx.parent) == {"int8.onnx", "int8.onnx.manifest.json"}
    manifest = read_manifest(calibration.onnx)
    assert manifest.details["keep_float"] == [*OWN, *report.best.kept_float]
    assert manifest.details["gate"]["reached"] is False
    again = right(calibration.onnx, validation)
    reference = right(model, validation)
    assert (int((reference & ~again).sum()), int((again & ~reference).sum())) == (report.best.only_fp32, report.best.only_int8)
    assert 100 * again.mean() == pytest.approx(report.best.top1)


def right(onnx, validation):
    spec = RunnerSpec("x", kwargs={"backend": "onnxruntime", "artifact": str(onnx)})
    result = LogitsRun(spec, validation).collect()
    return result.logits.argmax(axis=1) == result.labels


def test_the_first_step_inside_the_gate_is_taken_and_nothing_measured_twice(hopeless, model, images, options, gate, out):
    steps = hopeless[1].steps
    limit = steps[hopeless[1].chosen].top1_drop_ci95[1]
    opened = []

    @contextmanager
    def stage(name):
        opened.append(name)
        yield None

    calibration, report = calibrate_within(model, images, out, options, replace(gate, max_drop=limit), stage)
    assert report.reached
    assert (report.reason, report.images_needed) == ("", None)
    assert report.best.top1_drop_ci95[1] <= limit
    assert all(step.top1_drop_ci95[1] > limit for step in report.steps[:-1])
    assert all(step.reused for step in report.steps)
    assert not [name for name in opened if name.startswith("validating")]
    assert calibration.onnx == out
    assert read_manifest(out).details["gate"]["reached"] is True


def test_an_interrupted_search_leaves_no_model_and_goes_on(hopeless, model, images, options, gate, out):
    """Measurements before the interruption are not repeated, and no partial file is at the model's path."""
    side = model.with_name("model.onnxruntime.search.json")
    whole = json.loads(side.read_text())
    first, second, *others = whole["found"]
    for name in (second, *others):
        del whole["found"][name]
    side.write_text(json.dumps(whole))

    class Watch:
        def __init__(self, last):
            self.opened, self.last = [], last

        @contextmanager
        def __call__(self, name):
            if name.startswith("validating"):
                self.opened.append(name)
                if len(self.opened) > self.last:
                    raise KeyboardInterrupt
            yield None

    limit = replace(gate, max_drop=HOPELESS)
    watch = Watch(2)  # fp32, and the second step
    with pytest.raises(KeyboardInterrupt):
        calibrate_within(model, images, out, options, limit, watch)
    assert names(out.parent) == set()
    assert list(json.loads(side.read_text())["found"]) == [first, second]
    _, report = calibrate_within(model, images, out, options, limit)
    assert [step.reused for step in report.steps[:3]] == [True, True, False]
    assert [replace(step, reused=False) for step in report.steps] == [replace(step, reused=False) for step in hopeless[1].steps]


def test_too_few_images_end_the_search_at_once_and_say_how_many_are_needed(hopeless, model, images, options, gate, out):
    _, report = calibrate_within(model, images, out, options, replace(gate, max_drop=0.1))
    assert not report.reached
    assert len(report.steps) == 1
    assert "too few" in report.reason
    assert report.images_needed is None  # these ranges cost far more than that
    assert out.is_file()
    good = replace(options, method="minmax", table=out.with_name("minmax.json"))
    _, report = calibrate_within(model, images, out, good, replace(gate, max_drop=0.1))
    assert report.images_needed is None or report.images_needed > 3800


def test_a_backend_that_cannot_run_here_is_simulated(model, images, options, gate, out):
    wanted = replace(options, recipe=RECIPES["tensorrt"], method="minmax", table=out.with_name("table.json"))
    calibration, report = calibrate_within(model, images, out, wanted, replace(gate, max_drop=20.0))
    assert report.reached
    assert (report.measured_with, report.simulated, report.slowdown) == ("onnxruntime", True, None)
    assert read_manifest(calibration.onnx).backend == "tensorrt"


def test_bad_input_is_refused_before_anything_is_done(model, images, options, gate, out, tmp_path):
    flat = tmp_path / "flat.npz"
    np.savez(flat, images=np.zeros((2, 3, 32, 32), np.float32))
    wanted = replace(options, table=tmp_path / "table.json")
    with refusing(DataError, flat):
        calibrate_within(model, images, out, wanted, replace(gate, validation=flat))
    with refusing(OutputError, "missing"):
        calibrate_within(model, images, out / "missing" / "x.onnx", wanted, gate)
    assert names(tmp_path) == {"out", "flat.npz"}
    assert names(out.parent) == set()


def test_of_several_outputs_the_named_one_is_searched(model, images, options, gate, out, tmp_path):
    proto = onnx.load(model)
    (output,) = proto.graph.output
    logits = output.name
    proto.graph.node.append(onnx.helper.make_node("Neg", [logits], ["negated"]))
    proto.graph.output.insert(0, onnx.ValueInfoProto(name="negated", type=output.type))
    onnx.save(proto, tmp_path / "two.onnx")
    _, report = calibrate_within(tmp_path / "two.onnx", images, out, replace(options, output_name=logits), gate)
    assert len(report.steps) > 1
    assert report.best.top1_drop < report.steps[0].top1_drop


@pytest.mark.slow
def test_fine_tuning_comes_after_all_else_and_is_measured_again(model, options, gate, out, monkeypatch):
    pytest.importorskip("torch")
    from emca_deploy.calibration.finetuning import training
    from emca_deploy.calibration.finetuning.finetune import FineTuning

    monkeypatch.setattr(training, "STEPS", 40)
    # The ranges clip a fifth of the values, which a few minutes would repair as well.
    monkeypatch.setattr(training, "LEARNING_RATES", {"steps": 0.001, "growths": 0.003, "ranges": 0.05, "biases": 5.0})
    monkeypatch.setattr(search, "next_kept", lambda ranking, kept: None)  # as if no layer helped
    teaching = FineTuning(model, "0" * 64, lambda batch: logits_of(model, batch), 1e6)
    wanted = replace(options, samples=32, recover="finetune", fine_tuning=teaching, table=out.with_name("ranges.json"))
    calibration, report = calibrate_within(model, Images(32, seed=1), out, wanted, replace(gate, max_drop=3.7))
    assert [step.fine_tuned for step in report.steps] == [False, True]
    assert report.steps[1].agreement > report.steps[0].agreement
    assert report.chosen == 1
    details = read_manifest(out).details
    assert details["recover"] == "finetune"
    assert details["finetune"] == to_json(calibration.fine_tuned)
    assert ("fine-tuning" in report.reason) != report.reached
