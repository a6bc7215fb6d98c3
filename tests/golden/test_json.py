"""The `--json` of every command and the files it writes keep their shape; each comes from a real run on a tiny network."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emca_deploy.cli import run
from golden.shapes import shape_of
from zoo.networks import squeeze_excitation, to_onnx

ONE = ["--threads", "1"]
QUICK = ["--duration", "0.1", "--max-duration", "0.1", "--warmup", "0", "--processes", "1", *ONE]
CALIBRATED = ["--data", "images.npz", "--backend", "onnxruntime", "--samples", "2", *ONE]
GATED = ["--method", "minmax", "--recover", "none", "--max-drop", "99", "--val", "validation.npz"]
DEPLOYED = ["--targets", "cpu", "--backend", "onnxruntime", "--image-size", "32", "--resize-size", "36", "--samples", "2"]
DEPLOYED += ["--recover", "none", "--duration", "0.5", "--data", "images.npz", "--val", "images.npz", *ONE]

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of three classes, labelled images, and the files that commands make from them."""
    import onnx

    from emca_deploy.artifacts import Manifest, Preprocessing, write_manifest

    made: Path = tmp_path_factory.mktemp("golden")
    onnx.save(to_onnx(squeeze_excitation, size=16), made / "net.onnx")
    write_manifest(made / "net.onnx", Manifest("onnx", "", "fp32", num_classes=10, preprocessing=Preprocessing(16, 18)))
    images = np.random.default_rng(0).integers(0, 256, (12, 20, 20, 3), np.uint8)
    for name, some in (("images", images[:6]), ("validation", images[6:])):
        np.savez(made / f"{name}.npz", images=some, labels=np.arange(6) % 3)
    return made


@pytest.fixture
def ask(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return a function that runs a command with `--json` in the folder and returns the shape of its document.

    A document must fit its schema if the package ships one.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", str(folder / "devices.toml"))

    def call(*words: str) -> Any:
        capsys.readouterr()
        assert run([*words, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        name = "bundle-layout" if "--layout" in words else words[0]
        schema = files("emca_deploy") / "results" / "schemas" / f"{name}.json"
        if schema.is_file():
            jsonschema = pytest.importorskip("jsonschema")
            jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(document)
        return shape_of(document)

    return call


def in_file(path: Path) -> Any:
    return shape_of(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.usefixtures("kept_exports")
def test_export_and_models(ask: Ask, golden: Any, folder: Path, small_networks: Any) -> None:
    pytest.importorskip("torch")
    fresh = ["--random-init", "--arch", "resnet10", "--num-classes", "3"]
    with small_networks():
        golden("json/export", ask("export", *fresh, "--image-size", "32", "-o", "model.onnx"))
    golden("file/exported-manifest", in_file(folder / "model.onnx.manifest.json"))
    golden("json/models", ask("models", "--family", "srm_resnet18", "--image-size", "32"))


def test_calibrate(ask: Ask, golden: Any, folder: Path) -> None:
    golden("json/calibrate", ask("calibrate", "net.onnx", "-o", "int8.onnx", *CALIBRATED, *GATED))
    golden("file/calibrated-manifest", in_file(folder / "int8.onnx.manifest.json"))
    golden("file/ranges", in_file(folder / "net.ranges.json"))


def test_sensitivity(ask: Ask, golden: Any) -> None:
    golden("json/sensitivity", ask("sensitivity", "net.onnx", *CALIBRATED))


@pytest.mark.parametrize("more", [(), ("--dla",)], ids=["gpu", "dla"])
def test_plan(ask: Ask, golden: Any, more: tuple[str, ...]) -> None:
    board = ["--backend", "tensorrt", "--device", "orin-nx", "--jetpack", "6.2"]
    golden("-".join(("json/plan", *more)).replace("---", "-"), ask("plan", "net.onnx", *board, *more))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_build(ask: Ask, golden: Any, folder: Path, backend: str) -> None:
    pytest.importorskip(backend)
    golden(f"json/build-{backend}", ask("build", "net.onnx", "--backend", backend, "-o", f"{backend}.engine", *ONE))
    golden(f"file/engine-manifest-{backend}", in_file(folder / f"{backend}.engine.manifest.json"))


def test_profile_and_compare(ask: Ask, golden: Any) -> None:
    artifacts = ["onnxruntime=net.onnx", "fake:latency_ms=1"]
    golden("json/profile", ask("profile", *artifacts, *QUICK, "-o", "result.json", "--no-telemetry"))
    golden("json/compare", ask("compare", "result.json", "result.json"))


def test_gate(ask: Ask, golden: Any) -> None:
    document = Path(__file__).parents[1] / "unit/results/documents/validate-detection-v1.json"
    golden("json/gate", ask("gate", str(document), "--require", "drop<=5,drop<=0.5", "--allow-undecided"))


def test_history(ask: Ask, golden: Any) -> None:
    document = Path(__file__).parents[1] / "unit/results/documents/profile-v2.json"
    assert run(["history", "add", str(document), "--store", "history.db"]) == 0
    golden("json/history", ask("history", "show", "p50", "--store", "history.db"))


def test_bundle(ask: Ask, golden: Any) -> None:
    assert run(["build", "net.onnx", "--backend", "onnxruntime", "-o", "net.engine", *ONE]) == 0
    golden("json/bundle", ask("bundle", "net.engine", "-o", "net.emca"))
    golden("json/bundle-layout", ask("bundle", "net.onnx", "--layout", "triton", "-o", "repository"))
    golden("json/inspect", ask("inspect", "net.emca"))
    golden("json/verify", ask("verify", "net.emca"))


def test_layers(ask: Ask, golden: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from emca_deploy.api import layers

    monkeypatch.setattr(layers, "PROBE_S", 0.0)
    golden("json/layers", ask("layers", "net.onnx", "--calls", "2", *ONE))


@pytest.mark.usefixtures("in_process")  # on a real clock, the winning setting and thus `numerics` depend on other load
def test_tune(ask: Ask, golden: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from emca_deploy.harness.measure import tuning

    monkeypatch.setattr(tuning, "_TOLERANCE", 1000.0)
    golden("json/tune", ask("tune", "fake:latency_ms=1", "--budget", "1", "--threads-max", "1"))


def test_validate(ask: Ask, golden: Any) -> None:
    words = ["--data", "images.npz", "--reference", "fake:classes=10,size=16", "--flips", "flips.json", *ONE]
    golden("json/validate", ask("validate", "net.onnx", *words))
    found = ask("validate", "net.onnx", *words[:-2], "--max-drop", "100", "--corruptions", "fog", *ONE)
    golden("json/validate-corruptions", found["corruptions"])


@pytest.mark.usefixtures("kept_exports")
def test_deploy(ask: Ask, golden: Any, folder: Path, small_networks: Any) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from emca_deploy.networks.registry import create_model

    torch.manual_seed(0)
    with small_networks():
        save_file(create_model("resnet10", 3).state_dict(), folder / "weights.safetensors")
        found = ask("deploy", "weights.safetensors", "--arch", "resnet10", "-o", "deployed", *DEPLOYED)
    golden("json/deploy", found)
    assert in_file(folder / "deployed" / "result.json") == found


@pytest.mark.usefixtures("in_process")
def test_sweep(ask: Ask, golden: Any, folder: Path) -> None:
    plan = 'models = ["fake:latency_ms=1"]\nbackends = "fake"\n[measure]\nduration = 0.1\nwarmup = 0\ntelemetry = false\n'
    (folder / "sweep.toml").write_text(plan)
    golden("json/sweep", ask("sweep", "sweep.toml", "-o", "swept"))
    (cell,) = (folder / "swept" / "cells").iterdir()
    golden("file/sweep-cell", in_file(cell))


def test_devices(ask: Ask, golden: Any) -> None:
    assert run(["devices", "add", "this", "cpu", "--notes", "here"]) == 0
    golden("json/devices", ask("devices"))
    golden("json/devices-check", ask("devices", "check", "this"))


def test_doctor(ask: Ask, golden: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from emca_deploy.api import doctor

    monkeypatch.setattr(doctor, "load_failure", lambda module: None)  # tests/cli/test_doctor.py loads every library
    golden("json/doctor", ask("doctor"))
