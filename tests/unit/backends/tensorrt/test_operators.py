"""Operators of detectors that versions of TensorRT lack or limit: the same answer from `plan` and `build`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy.artifacts import Manifest, write_manifest
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.tensorrt.builder import RtxBuilder
from emca_deploy.backends.tensorrt.model_facts import read_facts
from emca_deploy.backends.tensorrt.operators import LARGEST_K, check_operators
from emca_deploy.backends.tensorrt.planner import PlanRequest, make_plan
from emca_deploy.backends.tensorrt.steps import list_steps
from emca_deploy.cli import run
from emca_deploy.errors import ModelError
from emca_deploy.machines.boards import find_board, find_jetpack


def cropping(path: Path, operator: str = "RoiAlign", count: int = 100) -> Path:
    """Write a network that crops a region of its images and selects `count` of their pixels."""
    import onnx

    zeros = ", ".join(["0"] * 32)
    graph = (
        f"(float[1, 3, 64, 64] images) => (float[1, {count}] logits)<float[1, 4] boxes = {{0, 0, 8, 8}}, int64[1] which = {{0}}, "
        f"float[1, 4, 4, 2] grid = {{{zeros}}}, int64[1] most = {{{count}}}>"
    )
    crop = {
        "RoiAlign": "crop = RoiAlign <output_height = 4, output_width = 4, sampling_ratio = 2> (images, boxes, which)",
        "GridSample": "crop = GridSample (images, grid)",
    }[operator]
    body = f"{{ {crop} means = ReduceMean <axes = [1, 2]> (crop) flat = Flatten (images) logits, places = TopK (flat, most) }}"
    text = f'<ir_version: 8, opset_import: ["" : 17]>\ncropping {graph} {body}'
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("operator", "backend", "version", "count", "words"),
    [
        ("RoiAlign", "tensorrt", (8, 5, 0), 100, None),
        ("GridSample", "tensorrt", (8, 5, 0), LARGEST_K, None),
        ("GridSample", "tensorrt-rtx", (1, 7, 1), 100, None),
        ("RoiAlign", "tensorrt", (8, 4, 9), 100, ["8.4.9", "JetPack 5.1"]),
        ("GridSample", "tensorrt", (8, 4, 9), 100, ["8.4.9", "--part dense"]),
        ("RoiAlign", "tensorrt-rtx", (1, 7, 1), 100, ["--roi gridsample"]),
        ("GridSample", "tensorrt", (11, 1, 0), LARGEST_K + 1, ["3,840", "3,841"]),
    ],
)
def test_operators_by_version(tmp_path, operator, backend, version, count, words):
    path = cropping(tmp_path / "net.onnx", operator, count)
    if words is None:
        check_operators(path, backend, version)
        return
    with refusing(ModelError, "net.onnx", operator if count <= LARGEST_K else "TopK") as caught:
        check_operators(path, backend, version)
    assert all(word in f"{caught.value.problem} {caught.value.remedy}" for word in words)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (("--backend", "tensorrt", "--device", "xavier-nx", "--jetpack", "4.6.1"), "JetPack 5.1"),
        (("--backend", "tensorrt-rtx", "--device", "8.6", "--tensorrt-version", "1.7"), "--roi gridsample"),
    ],
)
def test_plan_refuses_what_the_version_lacks(tmp_path, capsys, device, words):
    path = cropping(tmp_path / "net.onnx")
    assert run(["plan", str(path), *device, "--json"]) == 2
    assert words in capsys.readouterr().err
    assert run(["plan", str(path), "--backend", "tensorrt", "--device", "orin-nx", "--jetpack", "6.2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(path)


def test_a_dla_leaves_the_selection_of_boxes_to_the_gpu(tmp_path):
    facts = read_facts(cropping(tmp_path / "net.onnx"))
    assert facts.selections == 1
    wanted = PlanRequest("tensorrt", find_board("orin-nx"), jetpack=find_jetpack("6.2"), dla=True)
    extra = set(make_plan(facts, wanted).warnings) - set(make_plan(replace(facts, selections=0), wanted).warnings)
    assert len(extra) == 1
    assert "--part dense" in extra.pop()
    assert make_plan(facts, replace(wanted, dla=False)).warnings == ()


def test_the_builder_names_the_form_that_tensorrt_rtx_takes(rtx, tmp_path):
    with refusing(ModelError, "net.onnx", "RoiAlign") as caught:
        RtxBuilder().build(cropping(tmp_path / "net.onnx"), tmp_path / "net.engine", RunOptions())
    assert "--roi gridsample" in caught.value.remedy
    assert not (tmp_path / "net.engine").exists()


@pytest.mark.parametrize(
    ("detector", "options"),
    [
        ({"part": "full", "roi": "gridsample"}, ("--roi", "gridsample")),
        ({"part": "dense", "roi": None}, ("--part", "dense")),
        ({"part": "full", "roi": "roialign"}, ()),
        (None, ()),
    ],
)
def test_an_fp16_detector_is_exported_in_the_form_of_the_fp32_one(tmp_path, detector, options):
    path = cropping(tmp_path / "net.onnx", "GridSample")
    write_manifest(path, Manifest("onnx", "", "fp32", details={} if detector is None else {"detector": detector}))
    facts = read_facts(path)
    plan = make_plan(facts, PlanRequest("tensorrt-rtx", find_board("8.6"), "1.7", precision="fp16"))
    (export, _) = list_steps(plan, facts)
    assert export.command == " ".join(
        ["emca-deploy export CHECKPOINT --precision fp16", *options, "-o", str(tmp_path / "net.fp16.onnx")]
    )
