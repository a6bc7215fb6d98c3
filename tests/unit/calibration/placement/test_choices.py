"""The choices that a recipe leaves open: each changes what it names, where it says, and gives a valid INT8 model."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from emca_deploy.api.placing.variants import Variants
from emca_deploy.artifacts import Preprocessing
from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.calibration.calibrate import ensure_ranges
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement.choices import chosen_recipe, open_choices, region_heights, single_choices
from emca_deploy.calibration.placement.coverage import measure_coverage
from emca_deploy.calibration.placement.place import place, quantizable
from emca_deploy.calibration.ranges.table import read_table, write_table
from emca_deploy.tasks.logits import signal_to_noise_db
from zoo.networks import SIZE, multiscale, residual, to_onnx
from zoo.quantizing import Images
from zoo.recipes import calibration_options, collect_ranges

REWRITES = tuple(dict.fromkeys(rewrite for recipe in all_recipes() for rewrite in recipe.rewrites))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network with multi-scale attention, and its images."""
    path = tmp_path_factory.mktemp("zoo") / "model.onnx"
    onnx.save(to_onnx(multiscale), path)
    return path


@pytest.fixture(scope="module")
def graph(model):
    return load_graph(model, Preprocessing.for_size(SIZE)).graph


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def variants(request, model):
    images = Images(8)
    ranges = collect_ranges(model, images, range(8), 1)
    return Variants(load_graph(model, images.preprocessing), find_recipe(request.param), REWRITES, (), ranges, {})


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"])
def test_the_defaults_are_the_recipe_and_every_other_value_is_another_one(backend):
    recipe = find_recipe(backend)
    space = open_choices(recipe, REWRITES, ())
    assert {"pass_through", "symmetric_gate"} & {tunable.name for tunable in space} == {
        *(["pass_through"] if recipe.outputs else []),
        *([] if recipe.symmetric else ["symmetric_gate"]),
    }
    assert chosen_recipe(recipe, REWRITES, {tunable.name: tunable.default for tunable in space}) == recipe
    others = [chosen_recipe(recipe, REWRITES, {tunable.name: value}) for tunable in space for value in tunable.others]
    assert all((other, other.rewrites) != (recipe, recipe.rewrites) for other in others)
    assert len({(repr(other), other.rewrites) for other in others}) == len(others)


def test_choices_are_combined_and_a_region_changes_what_the_whole_network_has():
    recipe = find_recipe("openvino")
    values = {"residual@28": "none", "symmetric_gate": False, "residual": "identity"}
    found = chosen_recipe(recipe, REWRITES, values)
    assert replace(found, regions=()) == replace(recipe, residual="identity", symmetric_gate=False)
    assert dict(found.regions) == {28: replace(recipe, residual="none", symmetric_gate=False)}


def test_a_region_holds_for_maps_of_its_height_only(graph):
    recipe = find_recipe("openvino")
    heights = region_heights(graph)
    assert len(heights) > 1
    changed = chosen_recipe(recipe, REWRITES, {f"residual@{heights[0]}": "none"})
    before, after = place(graph, recipe), place(graph, changed)
    lost = {edge for edges in before.edges.values() for edge in edges} - {
        edge for edges in after.edges.values() for edge in edges
    }
    assert lost
    assert {(node.op_type, node.inputs[index].shape[2]) for node, index in lost} == {("Add", heights[0])}


def test_networks_with_maps_of_one_height_have_no_regions():
    text = "(float[1,3,8,8] x) => (float[1,3,8,8] y) { a = Relu(x) y = Add(a, x) }"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\none {text}')
    assert region_heights(ir.from_proto(proto).graph) == ()


def test_every_choice_gives_a_valid_model_near_the_float_one(variants, model, tmp_path):
    images = Images(16, seed=1).images
    reference = _logits(model, images)
    space = variants.space()
    assert "float.Classifier" in {tunable.name for tunable in space}
    for tunable in space:
        for value in tunable.others:
            path = tmp_path / "variant.onnx"
            variants.write({tunable.name: value}, path)
            onnx.checker.check_model(str(path), full_check=True)
            assert signal_to_noise_db(reference, _logits(path, images)) > 20, (tunable.name, value)


def _logits(path, images):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {session.get_inputs()[0].name: one[None]})[0] for one in images])


def test_no_two_choices_of_a_space_give_the_same_model(variants):
    space = variants.space()
    texts = [variants.quantized({tunable.name: value}).graph for tunable in space for value in tunable.others]
    nodes = [tuple((node.op_type, *(str(value and value.name) for value in node.inputs)) for node in one) for one in texts]
    types = [tuple(str(value.dtype) for value in one.initializers.values()) for one in texts]
    assert len(set(zip(nodes, types, strict=True))) == len(nodes)


@pytest.mark.parametrize(("choice", "layers"), [("float.Classifier", 1), ("float.First", 1), ("float.Branch", 4)])
def test_layers_that_a_choice_leaves_in_float_are_in_the_coverage_with_a_reason(choice, layers, tmp_path):
    onnx.save(to_onnx(residual), tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx", Preprocessing.for_size(SIZE)).graph
    recipe = find_recipe("openvino")
    whole = measure_coverage(graph, place(graph, recipe))
    changed = measure_coverage(graph, place(graph, chosen_recipe(recipe, REWRITES, {choice: True})))
    assert whole.int8_layers - changed.int8_layers == layers
    assert all(layer.reason for layer in changed.float_layers)


def test_a_table_that_lacks_a_tensor_of_a_choice_is_measured_again(tmp_path, graph):
    path = tmp_path / "model.onnx"
    onnx.save(to_onnx(multiscale), path)
    options = calibration_options("openvino", "minmax", 4)
    table, file, reused = ensure_ranges(path, Images(4), options)
    assert not reused
    lost = next(iter(table.ranges))
    kept = {name: values for name, values in table.ranges.items() if name != lost}
    write_table(file, replace(table, ranges=kept))
    assert ensure_ranges(path, Images(4), options)[2]
    every = replace(options, measured_for=(*options.measured_for, *single_choices(options.recipe, REWRITES, graph)))
    again, _, reused = ensure_ranges(path, Images(4), every, needed=set(quantizable(graph, every.measured_for)))
    assert not reused
    assert again.ranges.keys() >= table.ranges.keys()
    assert again.ranges == read_table(file).ranges
