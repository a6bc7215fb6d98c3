"""`emca-deploy models`."""

import json
import subprocess
import sys

import pytest

from emca_deploy.cli import run
from emca_deploy.networks.registry import ARCHITECTURES


def test_json(capsys):
    assert run(["models", "--json", "--family", "emca_eca_resnet18", "--image-size", "224"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["schema_version"] == 1
    (model,) = document["models"]
    assert model["params"] == 11_689_539
    assert model["params_mi"] == pytest.approx(11.148, abs=0.0006)
    assert model["macs"] == pytest.approx(model["gmacs"] * 1e9) == pytest.approx(model["gflops_gi"] * 2**30)
    assert (model["name"], model["family"], model["depth"]) == ("emca_eca_resnet18", "emca_eca_resnet", 18)
    assert model["published"] == {"params_mi": 11.148, "gmacs_gi": 1.695, "top1": 71.04, "top5": 89.99}


def test_image_size_changes_the_cost_and_unpublished_models_say_so(capsys):
    documents = []
    for size in ("448", "224"):
        assert run(["models", "--json", "--family", "pkcam_eca_resnet18", "--image-size", size]) == 0
        documents.append(json.loads(capsys.readouterr().out))
    large, small = (document["models"][0] for document in documents)
    assert large["published"] is None
    assert large["params"] == small["params"]
    assert 3.99 < large["macs"] / small["macs"] < 4.001
    assert [document["image_size"] for document in documents] == [448, 224]


def test_table(capsys):
    assert run(["models", "--family", "emca_se_resnet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "emca_se_resnet50" in line]
    for figure in ("26.253", "25.037", "4.090", "3.809", "77.33", "93.52"):
        assert figure in line
    names = [name for name, architecture in ARCHITECTURES.items() if architecture.family == "emca_se_resnet"]
    assert all(any(name in line for line in lines) for name in names)
    assert all(len(line.rstrip()) <= 80 for line in lines)


def test_detectors_are_listed_by_their_prefix(capsys):
    assert run(["models", "--family", "mask_rcnn_emca_eca_resnet50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (detector,) = document["detectors"]
    assert document["models"] == []
    assert (detector["name"], detector["detector"], detector["backbone"]) == (
        "mask_rcnn_emca_eca_resnet50_fpn",
        "mask_rcnn",
        "emca_eca_resnet50",
    )
    assert detector["params"] == pytest.approx(44.396e6, abs=0.001e6)
    assert run(["models", "--family", "mask_rcnn_emca_eca"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("mask_rcnn_emca_eca_resnet" in line for line in lines) == 5
    assert all(len(line.rstrip()) <= 80 for line in lines)


def test_unknown_family(capsys):
    assert run(["models", "--family", "emca_ecaresnet"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    problem, remedy = captured.err.splitlines()
    assert "'emca_ecaresnet'" in problem
    assert "emca_eca_resnet" in remedy


def test_too_small_an_image(capsys):
    assert run(["models", "--image-size", "16"]) == 2
    assert "--image-size" in capsys.readouterr().err


def test_help_has_an_example_and_loads_no_torch():
    code = (
        "import sys; from emca_deploy.cli import run; run(['models', '--help']); "
        "loaded = {'torch', 'onnxruntime', 'openvino', 'numpy'} & set(sys.modules); sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "emca-deploy models --family" in done.stdout


def test_without_torch():
    code = "import sys; sys.modules['torch'] = None; from emca_deploy.cli import run; sys.exit(run(['models']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    problem, remedy = done.stderr.splitlines()
    assert "torch is not installed" in problem
    assert "emca-deploy[export]" in remedy
