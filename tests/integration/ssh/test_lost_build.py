"""A connection lost while an engine is downloaded: the downloaded part is kept, and nothing is built again."""

import signal

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from emca_deploy.artifacts import read_manifest, sha256_file
from emca_deploy.remote.errors import ConnectionLostError
from emca_deploy.remote.files import Arriving
from emca_deploy.requests import BuildRequest
from emca_deploy.targets.registry import parse


@pytest.fixture
def cut_on_the_way(far, monkeypatch):
    """Cut the connection once, when a part of the engine has arrived; return the bytes received on each connection."""
    arrived: list[int] = []
    plain = Arriving.take

    def take(self, *words):
        before = self.have
        write = self._write

        def write_and_cut(piece):
            write(piece)
            if not arrived:
                far.cut(signal.SIGKILL)

        self._write = write_and_cut
        try:
            plain(self, *words)
        finally:
            self._write = write
            arrived.append(self.have - before)

    monkeypatch.setattr(Arriving, "take", take)
    return arrived


@pytest.fixture
def large(tmp_path):
    """A network of 5 MB, more than pipes buffer."""
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((100, 3, 64, 64)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["input", "w"], ["c"]), helper.make_node("Flatten", ["c"], ["logits"])]
    images = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 64, 64])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 100])
    graph = helper.make_graph(nodes, "net", [images], [logits], [weight])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(tmp_path / "large.onnx"))
    return tmp_path / "large.onnx"


def test_an_engine_goes_on_coming_home(far, large, tmp_path, cut_on_the_way):
    engine = tmp_path / "net.ort"
    request = BuildRequest(str(large), "onnxruntime", str(engine), far.target, threads=1)
    manifest = parse(far.target).run(request).manifest
    size = engine.stat().st_size
    assert manifest.sha256 == sha256_file(engine) == read_manifest(engine).sha256
    first, second = cut_on_the_way
    assert 0 < first < size
    assert second == size - first
    far.wait_until_nothing_runs()
    assert not list((far.cache / "runs").iterdir())


def test_a_line_that_goes_down_before_leaves_nothing(far, model, tmp_path):
    cuts = []

    def cut(done, total):
        if not cuts:
            cuts.append(done)
            far.cut()

    request = BuildRequest(str(model), "onnxruntime", str(tmp_path / "net.ort"), far.target, threads=1)
    with pytest.raises(ConnectionLostError, match="was lost"):
        parse(far.target).run(request, cut)
    far.wait_until_nothing_runs()
    assert not list(tmp_path.glob("net.ort*"))
