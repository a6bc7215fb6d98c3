"""Tuned settings in a manifest: stored, used on the same machine, and ignored on others."""

import json
import os
from dataclasses import replace

import pytest

from emca_deploy._machine import CpuInfo
from emca_deploy.artifacts import Manifest, manifest_path, read_manifest, write_manifest
from emca_deploy.errors import ModelError
from emca_deploy.harness.measure.worker_main import make_runner
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.targets.candidates import CandidateOptions, candidate, candidates, run_notes
from emca_deploy.targets.settings import find_tuned, save_tuned, tuned_here, with_values

VALUES = {"threads": 2, "spin": False, "flush_denormals": True}


def record(**changes):
    return {
        "backend": "onnxruntime", "scenario": "single-stream", "batch": 1, "values": VALUES,
        **tuned_here("onnxruntime"), **changes,
    }  # fmt: skip


@pytest.fixture
def model(tmp_path):
    import onnx.parser

    graph = "(float[batch,3,8,8] images) => (float[batch,3] logits) { m = GlobalAveragePool(images) logits = Flatten(m) }"
    path = tmp_path / "model.onnx"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\nclassifier {graph}')
    path.write_bytes(model.SerializeToString())
    write_manifest(path, Manifest("onnx", "", "fp32"))
    return path


def test_a_manifest_without_settings_has_no_word_of_them(model):
    assert "settings" not in json.loads(manifest_path(model).read_text())
    assert find_tuned(model, read_manifest(model), "onnxruntime", "single-stream").values == {}


def test_kept_settings_are_used_and_said(model):
    before = json.loads(manifest_path(model).read_text())
    save_tuned(model, record())
    after = json.loads(manifest_path(model).read_text())
    assert {name: value for name, value in after.items() if name != "settings"} == before
    spec = candidate(str(model), None, CandidateOptions())
    assert spec.kwargs["threads"] == 2
    assert spec.kwargs["spin"] is False
    assert spec.kwargs["settings"] == {"flush_denormals": True}
    (note,) = run_notes([spec], CandidateOptions())
    assert "runs with its tuned settings" in note
    assert "spin=False" in note
    with make_runner(spec) as runner:
        assert runner.describe()["settings"] == {"flush_denormals": True}
    (alone,) = candidates([str(model)], (), CandidateOptions())
    assert alone.kwargs["spin"] is False


def test_untuned_and_explicit_choices_win(model):
    save_tuned(model, record())
    assert "settings" not in candidate(str(model), None, CandidateOptions(untuned=True)).kwargs
    assert run_notes([candidate(str(model), None, CandidateOptions())], CandidateOptions(untuned=True)) == ()
    for options, why in (
        (CandidateOptions(threads=1), "--threads"),
        (CandidateOptions(precision="bf16"), "--precision"),
        (CandidateOptions(batch=4, batch_chosen=True), "batch of 1"),
    ):
        spec = candidate(str(model), None, options)
        assert "settings" not in spec.kwargs
        (note,) = run_notes([spec], options)
        assert "not used" in note
        assert why in note


def test_each_backend_and_scenario_has_its_own_and_the_last_one_counts(model):
    save_tuned(model, record())
    save_tuned(model, record(scenario="offline", batch=16, values={"threads": 1, "batch": 16}))
    save_tuned(model, record(values={}))
    manifest = read_manifest(model)
    assert len(manifest.settings) == 2
    assert find_tuned(model, manifest, "onnxruntime", "single-stream").values == {}
    offline = candidate(str(model), None, CandidateOptions(scenario="offline", batch=8))
    assert offline.batch == 16
    assert offline.kwargs["batch"] == 16
    assert find_tuned(model, manifest, "openvino", "offline").values == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: found["machine"].update(usable_cores=64), "usable_cores"),
        (lambda found: found["machine"].update(cpu="another"), "cpu: "),
        (lambda found: found.update(runtime="0.1"), "not 0.1"),
    ],
)
def test_another_machine_or_runtime_takes_the_default_and_says_why(model, change, told):
    kept = record()
    change(kept)
    save_tuned(model, kept)
    spec = candidate(str(model), None, CandidateOptions())
    assert "settings" not in spec.kwargs
    (note,) = run_notes([spec], CandidateOptions())
    assert "settings are not used" in note
    assert told in note


@pytest.mark.parametrize(
    "change",
    [
        {"values": {"no such": 1}},
        {"values": {"flush_denormals": "yes"}},
        {"values": {"threads": "many"}},
        {"values": 3},
        {"machine": None},
        {"batch": "big"},
    ],
)
def test_a_manifest_that_was_tampered_with_is_refused(model, change):
    save_tuned(model, record(**change))
    with pytest.raises(ModelError) as caught:
        candidate(str(model), None, CandidateOptions())
    assert "--untuned" in caught.value.remedy
    candidate(str(model), None, CandidateOptions(untuned=True))


def test_nothing_is_kept_for_a_file_that_has_changed_or_has_no_manifest(model):
    model.write_bytes(model.read_bytes() + b"\0")
    before = manifest_path(model).read_bytes()
    with pytest.raises(ModelError, match="sha256"):
        save_tuned(model, record())
    assert manifest_path(model).read_bytes() == before
    manifest_path(model).unlink()
    with pytest.raises(ModelError, match="no manifest"):
        save_tuned(model, record())
    assert os.listdir(model.parent) == ["model.onnx"]  # noqa: PTH208


def test_values_become_options_of_the_runner_and_of_the_harness():
    spec = RunnerSpec("a", kwargs={"backend": "openvino", "threads": 4, "settings": {"pinning": True}})
    got = with_values(spec, {"threads": 1, "precision": "bf16", "streams": 2, "batch": 4})
    assert got.kwargs == {
        "backend": "openvino", "threads": 1, "precision": "bf16", "settings": {"pinning": True, "streams": 2}, "batch": 4,
    }  # fmt: skip
    assert (got.batch, got.precision) == (4, "bf16")
    assert with_values(spec, {}) == spec


@pytest.mark.parametrize(("bits", "vnni", "noted"), [(8, False, True), (7, False, False), (8, True, False)])
def test_weights_of_eight_bits_are_told_where_they_saturate(model, monkeypatch, bits, vnni, noted):
    sets = ("avx2", "avx512_vnni") if vnni else ("avx2",)
    monkeypatch.setattr("emca_deploy._machine.cpu_info", lambda: CpuInfo("a processor", "x86_64", 1, 1, sets))
    manifest = read_manifest(model)
    write_manifest(model, replace(manifest, details={**manifest.details, "weight_bits": bits}))
    for backend, told in (("openvino", noted), ("onnxruntime", False)):  # the latter is set to compute exactly
        notes = run_notes([candidate(str(model), backend, CandidateOptions(threads=1))], CandidateOptions())
        assert [("--weight-bits 7" in note) for note in notes] == ([True] if told else [])
