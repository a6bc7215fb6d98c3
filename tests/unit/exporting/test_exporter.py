"""The structure and the logits of an exported file, for every family."""

import re
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from emca_deploy._version import __version__

UNWANTED = {
    "Shape", "Gather", "If", "Loop", "BatchNormalization", "Unsqueeze", "Expand", "Tile", "Constant", "Identity", "Dropout",
    "ReduceMean", "Cast",
}  # fmt: skip


def test_the_graph_is_valid_clean_and_named(exported_family):
    import torch

    name, module, path = exported_family
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.producer_name, proto.producer_version) == ("emca-deploy", __version__)
    assert (len(proto.functions), len(proto.metadata_props)) == (0, 0)
    assert [o.domain for o in proto.opset_import] == [""]
    kinds = Counter(node.op_type for node in proto.graph.node)
    assert not UNWANTED & set(kinds)
    assert kinds["GlobalAveragePool"] >= 1
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    for wanted in ("stem.conv", "stage1.block0.conv1", "stage2.block0.conv1", "stage2.block0.shortcut.conv", "head"):
        assert wanted in names
    assert not [n for n in names if re.match(r"node_|val_|getattr", n)]
    convolutions = sum(isinstance(layer, torch.nn.Conv2d) for layer in module.modules())
    assert sum(bool(re.fullmatch(r"stem\.conv|stage\d\.block\d\.(conv\d|shortcut\.conv)", n)) for n in names) == convolutions
    assert ("attention" in " ".join(names) or "excitation" in " ".join(names)) == (name != "resnet18")


def test_tensors_are_named_after_their_nodes_and_nothing_of_this_machine_is_kept(exported_family):
    _, _, path = exported_family
    graph = onnx.load(path).graph
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        assert not node.metadata_props
        assert not node.doc_string
        assert node.output[0] in outputs or node.output[0] == node.name
    nodes = {node.name for node in graph.node}
    for tensor in graph.initializer:
        assert tensor.name.rpartition(".")[0] in nodes
    assert not graph.metadata_props
    assert not graph.doc_string
    assert b"site-packages" not in path.read_bytes()


@pytest.mark.parametrize("batch", [1, 5])
def test_every_batch_size_computes_what_pytorch_does(exported_family, batch):
    import torch

    _, module, path = exported_family
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(batch).standard_normal((batch, 3, 64, 64)).astype(np.float32)
    logits = session.run(None, {"images": images})[0]
    with torch.inference_mode():
        expected = module(torch.from_numpy(images)).numpy()
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
