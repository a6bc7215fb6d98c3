"""The number of images per run."""

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from emca_deploy.calibration.graphs.graph_session import batch_size


@pytest.mark.parametrize(
    ("batch", "side", "threads", "images"),
    [
        ("n", 224, 1, 2),
        ("n", 224, 6, 6),
        ("n", 224, 64, 8),
        ("n", 96, 1, 10),
        ("n", 8, 1, 16),
        ("1", 8, 8, 1),
        ("32", 224, 1, 32),
    ],
)
def test_a_run_takes_what_the_graph_says_or_little(batch, side, threads, images):
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        plain (float[{batch},3,{side},{side}] images) => (float[{batch},3,{side},{side}] result) {{ result = Relu (images) }}"""
    graph = ir.from_proto(onnx.parser.parse_model(text)).graph
    assert batch_size(graph, threads) == images
