"""Our networks, exported and quantized as for users, through TensorRT-RTX's parser and builder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emca_deploy.artifacts import Manifest, Preprocessing
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.tensorrt.builder import RtxBuilder
from zoo.recipes import calibration_options


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("arch", ["emca_srm_resnet18", pytest.param("se_resnet18", marks=pytest.mark.slow)])
def test_int8_builds_without_warnings_and_a_third_as_large(arch: str, tmp_path: Path, random_model: Any) -> None:
    pytest.importorskip("torch")
    import onnx

    from emca_deploy.calibration.calibrate import calibrate_model
    from emca_deploy.data.bundled import bundled_calibration_images
    from emca_deploy.data.sources import open_source

    fp32 = random_model(arch, 32)
    images = open_source(bundled_calibration_images(), Preprocessing.for_size(32))
    table = tmp_path / "ranges.json"
    options = calibration_options("tensorrt-rtx", samples=4, method="minmax", recover="none", table=table)
    int8 = calibrate_model(fp32, images, tmp_path / "int8.onnx", options).onnx
    mixed = calibrate_model(fp32, images, tmp_path / "mixed.onnx", replace(options, float_precision="fp16")).onnx
    found: dict[str, Any] = {}
    for model in (fp32, int8, mixed):
        builder = RtxBuilder()
        manifest: Manifest = builder.build(model, tmp_path / f"{model.stem}.engine", RunOptions())
        assert (manifest.arch, manifest.precision) == (arch, "fp32" if model is fp32 else "int8")
        found[model.stem] = manifest.details["tensorrt"]
        assert builder.last is not None
        writing_out = [
            layer.nodes for layer in builder.last.layers if layer.nodes and all("weight" in node for node in layer.nodes)
        ]
        assert writing_out == []  # no kernel that only converts INT8 weights to float
    assert all(built["warnings"] == [] for built in found.values())
    assert [found[name]["float_precision"] for name in ("fp32", "int8", "mixed")] == [None, "fp32", "fp16"]
    assert found["int8"]["notes"] == []
    assert all("scales to fp32" in note for note in found["mixed"]["notes"])
    assert found["mixed"]["int8_convolutions"] == found["int8"]["int8_convolutions"]
    moved = {name: sum(built["moved_bytes"].values()) for name, built in found.items()}
    assert moved["mixed"] < moved["int8"]
    assert "float16" not in found["int8"]["moved_bytes"]
    graph = onnx.load(int8).graph
    dequantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    placed = sum(node.op_type == "Conv" and node.input[1] in dequantized for node in graph.node)
    assert found["int8"]["int8_convolutions"] == found["int8"]["quantized_convolutions"] == placed > 15
    for smaller in (int8, mixed):
        assert (tmp_path / f"{smaller.stem}.engine").stat().st_size <= 0.35 * (tmp_path / "fp32.engine").stat().st_size
