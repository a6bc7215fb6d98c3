"""Layers and blocks by our names and by TorchScript's."""

import onnx_ir as ir
import pytest

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.sensitivity import find_units


def units_of(path, keep_float=(), rename=None, backend="openvino"):
    graph = ir.load(path).graph
    for node in graph:
        node.name = rename(node.name) if rename else node.name
    return find_units(graph, place(graph, find_recipe(backend), keep_float))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "tensorrt"])
def test_layers_and_blocks_of_a_residual_network(exported, backend):
    units = units_of(exported("emca_eca_resnet18"), backend=backend)
    layers = [unit for unit in units if unit.kind == "layer"]
    blocks = {unit.name: unit for unit in units if unit.kind == "block"}
    stem = [] if backend == "tensorrt" else ["stem.conv"]  # stays in float for this backend
    assert [unit.name for unit in layers][: len(stem) + 2] == [*stem, "stage1.block0.conv1", "stage1.block0.conv2"]
    assert len(layers) == 20 + len(stem)  # 20 convolutions and the head, without attention
    assert list(blocks) == [f"stage{stage}.block{block}" for stage in range(1, 5) for block in range(2)]
    assert blocks["stage2.block0"].pattern == "stage2.block0.*"
    assert blocks["stage2.block0"].layers == tuple(f"stage2.block0.{name}" for name in ("conv1", "conv2", "shortcut.conv"))
    by_name = {unit.name: unit.macs for unit in layers}
    assert stem == [] or by_name["stem.conv"] == 32 * 32 * 64 * 3 * 49
    assert by_name["stage2.block0.shortcut.conv"] == 8 * 8 * 64 * 128
    assert by_name["head"] == 512 * 10
    assert blocks["stage2.block0"].macs == sum(by_name[name] for name in blocks["stage2.block0"].layers)


def test_what_stays_in_float_is_no_unit(exported):
    names = {unit.name for unit in units_of(exported("emca_eca_resnet18"), ["stage1.*", "head"])}
    assert not {name for name in names if name.startswith("stage1")}
    assert "head" not in names
    assert "stage2.block0" in names


def test_names_with_slashes_and_pattern_characters_form_blocks_too(exported):
    def slashed(name):
        return "/" + name.replace(".", "/").replace("block", "blocks[") + "]"

    units = {unit.name: unit for unit in units_of(exported("emca_eca_resnet18"), rename=slashed)}
    block = units["/stage2/blocks[0"]
    assert len(block.layers) == 3
    path = exported("emca_eca_resnet18")
    graph = ir.load(path).graph
    for node in graph:
        node.name = slashed(node.name)
    recipe = find_recipe("openvino")
    whole = len(place(graph, recipe).weighted)
    assert len(place(graph, recipe, [block.pattern]).weighted) == whole - 3
    assert len(place(graph, recipe, [units["/stem/conv]"].pattern]).weighted) == whole - 1


def test_layers_without_names_are_left_out(exported):
    assert units_of(exported("emca_eca_resnet18"), rename=lambda name: None if name != "head" else name)[0].name == "head"
