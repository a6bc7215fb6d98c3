"""Engines of the three kinds of detectors, built by TensorRT-RTX without a GPU in every precision."""

import onnx_ir as ir
import pytest
import torch
from onnx_ir.passes import common

from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.registry import find_recipe
from emca_deploy.backends.tensorrt.builder import RtxBuilder
from emca_deploy.backends.tensorrt.settings import TrtSettings
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.exporting.detectors import export_detector
from emca_deploy.exporting.half_detector import convert_detector
from emca_deploy.tasks.detector_config import DETECTOR_KINDS
from zoo.detectors import small_detector


def quantized(model):
    """Write a model with the Q/DQ pairs of the backend's recipe; the ranges do not matter to a build."""
    graph = load_graph(model)
    placement = place(graph.graph, find_recipe("tensorrt-rtx"))
    names = {str(value.name) for node in graph.graph for value in (*node.inputs, *node.outputs) if value is not None}
    insert_qdq(graph, placement, dict.fromkeys(names, TensorRange(-4.0, 4.0)))
    ir.save(graph, model.with_name("int8.onnx"))
    return model.with_name("int8.onnx")


def halved(model, images, dense):
    """Write a model in fp16 as the export does; the dense outputs are compared."""
    graph = ir.load(model)
    found = list(graph.graph.outputs)
    values = {str(value.name): value for node in graph.graph for value in node.outputs}
    graph.graph.outputs.extend(values[name] for name in dense)
    convert_detector(graph, images, dense, 0.05)
    graph.graph.outputs[:] = graph.graph.outputs[: len(found)]
    common.RemoveUnusedNodesPass()(graph)
    ir.save(graph, model.with_name("fp16.onnx"))
    return model.with_name("fp16.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("kind", DETECTOR_KINDS)
def test_engines_of_every_precision(rtx, tmp_path, kind):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5)).numpy() * 4 - 2
    roi = None if kind == "retinanet" else "gridsample"
    module, fp32 = small_detector(kind).eval(), tmp_path / "fp32.onnx"
    export_detector(module, images, fp32, batch=1, opset=20, part="full", roi=roi)
    dense = tuple(module.dense(torch.from_numpy(images[:1])))
    models = {"fp32": fp32, "fp16": halved(fp32, images, dense), "int8": quantized(fp32)}
    found = {}
    for name, model in models.items():
        builder = RtxBuilder(TrtSettings(targets=("8.6",)))
        manifest = builder.build(model, tmp_path / f"{name}.engine", RunOptions())
        found[name] = builder.last
        assert manifest == read_manifest(tmp_path / f"{name}.engine")
        assert manifest.precision == name
    assert [built.int8_convolutions > 0.8 * built.convolutions for built in found.values()] == [False, False, True]
    halves = [layer for layer in found["fp16"].layers if layer.is_convolution and layer.inputs[0].dtype == "float16"]
    assert len(halves) > 20
