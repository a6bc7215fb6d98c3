"""A deployment hashes and parses each of its models once and reads each manifest once."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from emca_deploy import artifacts
from emca_deploy.cli import run


@pytest.fixture
def read(monkeypatch):
    """Counts by operation and the content's digest or the file's name."""
    counts = Counter()

    def hashing():
        digest = hashlib.new("sha256")

        class Counted:
            update = digest.update

            def hexdigest(self):
                counts["hashed", digest.hexdigest()] += 1
                return digest.hexdigest()

        return Counted()

    class Library:
        sha256 = staticmethod(hashing)

    def counted(what, real):
        def call(path, *args, **kwargs):
            counts[what, Path(path).name] += 1
            return real(path, *args, **kwargs)

        return call

    import onnx

    real_text = Path.read_text
    monkeypatch.setattr(artifacts, "hashlib", Library)
    monkeypatch.setattr(onnx, "load", counted("parsed", onnx.load))
    monkeypatch.setattr(Path, "read_text", counted("read", real_text))
    return counts


@pytest.mark.usefixtures("in_threads")
def test_each_model_is_read_once(tmp_path, small_checkpoint, small_networks, labelled_images, flat_images, read, capsys):
    out = tmp_path / "out"
    words = ["--data", flat_images, "--val", labelled_images, "-o", out, "--image-size", "32", "--resize-size", "40"]
    quick = ["--duration", "0.5", "--samples", "4", "--threads", "1", "--recover", "none", "--json"]
    with small_networks():
        assert run([str(word) for word in ["deploy", small_checkpoint, *words, *quick]]) == 0
    models = [path for path in out.glob("*.onnx") if not path.name.endswith(".ort.onnx")]
    assert {path.name for path in models} == {"model.onnx", "model.onnxruntime.int8.onnx", "model.openvino.int8.onnx"}
    for path in models:
        digest = json.loads(_manifest(path).read_text(encoding="utf-8"))["sha256"]
        assert (read["hashed", digest], read["read", _manifest(path).name] - 1, read["parsed", path.name]) == (1, 1, 1), path.name


def _manifest(path):
    return path.with_name(f"{path.name}.manifest.json")
