"""The number of images per run."""

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from emca_deploy.calibration.graphs.graph_session import batch_size


@pytest.mark.parametrize(
    ("batch", "threads", "images"),
    [("n", 1, 2), ("n", 2, 2), ("n", 6, 6), ("n", 64, 8), ("1", 8, 1), ("32", 1, 32)],
)
def test_a_run_takes_what_the_graph_says_or_little(batch, threads, images):
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        plain (float[{batch},3,8,8] images) => (float[{batch},3,8,8] result) {{ result = Relu (images) }}"""
    graph = ir.from_proto(onnx.parser.parse_model(text)).graph
    assert batch_size(graph, threads) == images
