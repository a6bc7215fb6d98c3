"""Layers on the terminal and as a plot."""

import io
import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from emca_deploy.errors import DataError
from emca_deploy.reporting.layers import layers_plot, print_layers
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.layers import KINDS, ArtifactLayers, Layer, LayersReport, Roofline

LAYERS = (
    Layer("stem", "Convolution", "convolution", "int8", 2.0, 80.0, ("stem",), 10**8, 100.0, 60.0, 400.0, 25.0, "compute", True),
    Layer("gate", "Multiply", "attention", "fp32", 0.25, 10.0),
    Layer("r", "Reorder", "conversion", "fp32", 0.25, 10.0),
)
SHARES = {**dict.fromkeys(KINDS, 0.0), "convolution": 80.0, "attention": 10.0, "conversion": 10.0}
RESULT = ArtifactLayers(
    "model.onnx",
    "openvino",
    "int8",
    1,
    2,
    LAYERS,
    2.5,
    3.0,
    3.3,
    2.7,
    SHARES,
    100,
    Roofline({"int8": 400.0}, 12.5),
    ("so it is",),
)
REPORT = LayersReport((RESULT,))


def printed(report: LayersReport, most: int = 25) -> str:
    console = Console(file=io.StringIO(), width=160)
    print_layers(report, console, most)
    return console.file.getvalue()


def test_table_and_summary():
    text = printed(REPORT)
    assert "25 compute *" in text
    assert "convolution 80.0 %, attention 10.0 %, conversion 10.0 %" in text
    assert "sum of the layers' medians 2.50 ms, 100 calls: 83 % of a call without profiling, 3.00 ms" in text
    assert "a profiled call takes 3.30 ms (+10 %), 82 % of it in layers" in text
    assert "int8 400 GOP/s; copy 12.5 GB/s" in text
    assert "note: so it is" in text


def test_short_layers_are_summed_up():
    text = printed(REPORT, most=1)
    assert "and 2 shorter layers, 20.0 %" in text
    assert "Reorder" not in text


def test_a_files_profile_has_no_end_to_end():
    only_layers = replace(RESULT, end_to_end_ms=None, profiled_ms=None, layers_ms=None, roofline=None, threads=None, notes=())
    text = printed(LayersReport((only_layers,)))
    assert "sum of the layers' medians 2.50 ms, 100 calls\n" in text
    ElementTree.fromstring(layers_plot(LayersReport((only_layers,))))


def test_plot_is_well_formed_escaped_and_to_scale():
    foreign = replace(RESULT, artifact="<b>&\x1b[31m.onnx", end_to_end_ms=5.0)
    root = ElementTree.fromstring(layers_plot(LayersReport((RESULT, foreign))))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any("<b>&?[31m.onnx" in text for text in texts)
    assert texts.count("80 %") == 2
    assert "int8: 400" in texts
    assert sum("GB/s" in text for text in texts) == 2
    height = float(root.get("height"))
    assert all(0 <= float(element.get("y")) <= height for element in root.iter("{http://www.w3.org/2000/svg}text"))


def test_json_and_back():
    again = from_json(LayersReport, json.loads(json.dumps(to_json(REPORT))))
    assert again == REPORT
    with pytest.raises(DataError, match="schema version"):
        from_json(LayersReport, {**to_json(REPORT), "schema_version": 7})
