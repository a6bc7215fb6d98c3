"""Fine-tuning within calibration: what is kept, recorded and refused."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from refusals import refusing

from emca_deploy.artifacts import manifest_path, sha256_file
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.finetuning import training
from emca_deploy.errors import InputError, ModelError
from emca_deploy.tasks.logits import LogitsNoise
from zoo.networks import NETWORKS, to_onnx
from zoo.quantizing import Images
from zoo.quantizing import run as logits_of
from zoo.recipes import calibration_options

SEEN = 16


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(training, "STEPS", 6)


def calibrate(model, output, teaching=None, images=None, **more):
    level = "weights" if teaching is None else "finetune"
    options = calibration_options("openvino", "minmax", samples=SEEN, recover=level, fine_tuning=teaching, **more)
    return calibrate_model(model, images or Images(SEEN, seed=1), output, options)


@pytest.mark.usefixtures("few_steps")
def test_the_result_is_recorded_and_the_same_again(taught, tmp_path):
    model, teaching = taught("residual")
    made = calibrate(model, tmp_path / "a.onnx", teaching)
    tuned = made.fine_tuned
    assert (tuned.images, tuned.kept_out, tuned.steps, tuned.batch, tuned.complete) == (12, 4, 6, 12, True)
    assert all(-60 < loss_db < -20 for loss_db in tuned.loss_db)
    details = json.loads(manifest_path(tmp_path / "a.onnx").read_text())["details"]
    assert details["recover"] == "finetune"
    assert details["finetune"] == made.to_dict()["finetune"]
    assert details["finetune"]["checkpoint_sha256"] == teaching.sha256
    calibrate(model, tmp_path / "b.onnx", teaching)
    assert sha256_file(tmp_path / "a.onnx") == sha256_file(tmp_path / "b.onnx")


def check_what_is_kept(model, teaching, folder):
    """The file has the fine-tuned numbers exactly where they brought the kept-out images closer to fp32."""
    without = calibrate(model, folder / "without.onnx")
    made = calibrate(model, folder / "tuned.onnx", teaching)
    reference, before, after = (logits_of(path, Images(SEEN, seed=1).images[3::4]) for path in (model, without.onnx, made.onnx))
    found = [LogitsNoise.of(reference, logits).typical_db for logits in (before, after)]
    tuned = made.fine_tuned
    wanted = tuned.typical_db if tuned.kept else (tuned.typical_db[0],) * 2
    assert found == pytest.approx(wanted, abs=0.5)
    assert np.array_equal(before, after) != tuned.kept
    return tuned


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("rate", [1e-2, 300.0], ids=["fine", "coarse"])
def test_the_result_is_kept_only_where_it_is_better(taught, tmp_path, monkeypatch, rate):
    monkeypatch.setitem(training.LEARNING_RATES, "biases", rate)
    tuned = check_what_is_kept(*taught("squeeze_excitation"), tmp_path)
    if rate == 300.0:
        assert not tuned.kept
        assert tuned.typical_db[1] < tuned.typical_db[0]


@pytest.mark.usefixtures("few_steps")
def test_a_training_that_diverges_changes_nothing(taught, tmp_path, monkeypatch):
    monkeypatch.setitem(training.LEARNING_RATES, "ranges", 1e4)
    tuned = check_what_is_kept(*taught("residual"), tmp_path)
    assert not tuned.kept
    assert tuned.loss_db[1] == training.LARGEST_DB


@pytest.mark.slow
def test_unseen_images_do_not_move_away_from_fp32(taught, tmp_path):
    model, teaching = taught("mobile")
    unseen = Images(200, seed=11).images
    images = Images(96, seed=1)
    found = []
    for level in (None, teaching):
        made = calibrate(model, tmp_path / "int8.onnx", level, images)
        found.append(LogitsNoise.of(logits_of(model, unseen), logits_of(made.onnx, unseen)).typical_db)
    assert found[1] > found[0] - 0.5


@pytest.mark.usefixtures("few_steps")
def test_a_budget_too_small_for_a_second_step_ends_the_training_after_the_first(taught, tmp_path):
    model, teaching = taught("residual", budget_s=1e-3)
    tuned = calibrate(model, tmp_path / "a.onnx", teaching).fine_tuned
    assert tuned.steps == 1
    assert not tuned.complete


@pytest.mark.usefixtures("few_steps")
def test_an_interrupt_leaves_the_earlier_file_and_the_threads(taught, tmp_path):
    model, teaching = taught("residual")
    output = tmp_path / "int8.onnx"
    calibrate_model(model, Images(SEEN, seed=1), output, calibration_options("openvino", "minmax", samples=SEEN, recover="none"))
    before, threads = sha256_file(output), torch.get_num_threads()

    def interrupt(done, total):
        assert (done, total) == (1, 6)
        raise KeyboardInterrupt

    def stage(name):
        return nullcontext(interrupt if name == "fine-tuning" else None)

    options = calibration_options(
        "openvino", "minmax", samples=SEEN, recover="finetune", fine_tuning=teaching, threads=threads + 1
    )
    with pytest.raises(KeyboardInterrupt):
        calibrate_model(model, Images(SEEN, seed=1), output, options, stage)
    assert sha256_file(output) == before
    assert torch.get_num_threads() == threads
    assert {path.name for path in tmp_path.iterdir()} == {"int8.onnx", "int8.onnx.manifest.json"}


def test_what_cannot_be_fine_tuned_is_refused_before_the_work(taught, tmp_path):
    model, teaching = taught("residual")
    output = tmp_path / "int8.onnx"
    with refusing(InputError, "checkpoint"):
        calibrate_model(model, Images(SEEN), output, calibration_options("openvino", recover="finetune"))
    _, other = taught("residual", seed=2)
    with refusing(InputError, "weights.pth", model):
        calibrate(model, output, other)
    with refusing(InputError, "7 calibration images"):
        calibrate(model, output, teaching, Images(7))
    narrower = replace(teaching, teacher=lambda images: teaching.teacher(images)[:, :3])
    with refusing(InputError, "weights.pth"):
        calibrate(model, output, narrower)
    fixed = to_onnx(NETWORKS["residual"], seed=1)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    del fixed.graph.value_info[:]
    onnx.save(fixed, tmp_path / "fixed.onnx")
    with refusing(ModelError, tmp_path / "fixed.onnx"):
        calibrate(tmp_path / "fixed.onnx", output, teaching)
    assert {path.name for path in tmp_path.iterdir()} == {"fixed.onnx"}
