"""An fp16 model as users export it, on every installed runtime and through TensorRT-RTX's builder."""

import json
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.registry import get_builder, open_runner
from emca_deploy.cli import run

SIZE = 40


@pytest.fixture(scope="module", params=[pytest.param("emca_eca_resnet18", marks=pytest.mark.slow), "emca_srm_resnet18"])
def pair(request, random_model):
    """The paths of an fp32 and an fp16 model of the same weights."""
    pytest.importorskip("torch")
    return {precision: random_model(request.param, SIZE, precision) for precision in ("fp32", "fp16")}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_runs_and_agrees_with_fp32(pair: dict[str, Path], backend: str, batch: int) -> None:
    pytest.importorskip(backend)
    images = np.random.default_rng(batch).standard_normal((batch, 3, SIZE, SIZE)).astype(np.float32)
    logits = {}
    for precision, path in pair.items():
        with open_runner(backend, str(path)) as runner:
            assert (runner.input.dtype, runner.output.dtype) == ("float32", "float32")
            logits[precision] = runner.infer(images).copy()
    error = np.abs(logits["fp16"] - logits["fp32"]).max() / np.abs(logits["fp32"]).max()
    assert 0 < error < 5e-3  # the rounding of weights: these runtimes compute everything else in float32


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "tensorrt-rtx"])
def test_engines_of_it_are_fp16(pair: dict[str, Path], backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend.replace("-", "_"))
    manifest = get_builder(backend).build(pair["fp16"], tmp_path / "engine", RunOptions())
    assert (manifest.precision, manifest.backend) == ("fp16", backend)


def test_tensorrt_computes_its_network_in_fp16_without_a_warning(pair: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from emca_deploy.backends.tensorrt.builder import RtxBuilder

    sizes, builds = {}, {}
    for precision, path in pair.items():
        builder = RtxBuilder()
        builder.build(path, tmp_path / precision, RunOptions())
        sizes[precision], builds[precision] = (tmp_path / precision).stat().st_size, builder.last
    half = builds["fp16"]
    assert half.warnings == ()
    convolutions = [layer for layer in half.layers if layer.is_convolution]
    of_network = [layer for layer in convolutions if "attention" not in layer.name]
    assert {layer.inputs[0].dtype for layer in of_network} == {"float16"}
    assert len(of_network) >= 20
    assert {layer.inputs[0].dtype for layer in convolutions if layer not in of_network} == {"float32"}
    means = [layer for layer in half.layers if "Mean" in layer.name]
    assert means
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
    moved = {name: sum(layer.moved_bytes for layer in built.layers) for name, built in builds.items()}
    assert moved["fp16"] < 0.6 * moved["fp32"]


@pytest.mark.usefixtures("in_threads")
def test_profile_and_validate_say_fp16(pair: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(pair["fp16"])
    assert run(["profile", path, "--duration", "0.2", "--threads", "1", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["precision"], result["backend"]) == ("fp16", "onnxruntime")
    images = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)
    np.savez(tmp_path / "val.npz", images=images, labels=np.arange(6))
    command = [
        "validate",
        path,
        "--data",
        str(tmp_path / "val.npz"),
        "--reference",
        str(pair["fp32"]),
        "--threads",
        "1",
        "--json",
    ]
    assert run(command) == 0
    reference = json.loads(capsys.readouterr().out)["reference"]
    assert reference["agreement"] == 100
    assert 50 < reference["sqnr_db"] < 110
