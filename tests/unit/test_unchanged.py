"""Cached facts about a file are dropped after any change, even an immediate one."""

import os

import pytest

from emca_deploy import artifacts
from emca_deploy.artifacts import Manifest, read_manifest, sha256_file, write_artifact
from emca_deploy.errors import ModelError
from emca_deploy.unchanged import Remembered, set_apart, stamp_of


@pytest.fixture
def read(monkeypatch):
    """A list with one entry per hashed file."""
    names = []
    real = artifacts.hashlib.sha256

    def count():
        names.append("hashed")
        return real()

    monkeypatch.setattr(artifacts.hashlib, "sha256", count)
    return names


def make(path, content=b"weights"):
    with write_artifact(path) as draft:
        draft.path.write_bytes(content)
        draft.manifest = Manifest("onnx", "", "fp32")
    return path


def test_an_artifact_is_hashed_once(tmp_path, read):
    path = make(tmp_path / "model.onnx")
    assert read_manifest(path).sha256 == sha256_file(path)
    assert len(read) == 1


@pytest.mark.parametrize("change", ["in place", "replaced", "time put back"])
def test_a_change_right_after_writing_is_seen(tmp_path, change):
    path = make(tmp_path / "model.onnx")
    assert read_manifest(path) is not None
    stamp = path.stat()
    if change == "replaced":
        (tmp_path / "other").write_bytes(b"WEIGHTS")
        (tmp_path / "other").replace(path)
    else:
        path.write_bytes(b"WEIGHTS")
    if change == "time put back":
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    with pytest.raises(ModelError):
        read_manifest(path)


def test_a_file_that_has_only_just_been_written_is_not_remembered(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1")
    known: Remembered[str] = Remembered()
    known.put(path, stamp_of(path), "one")
    assert known.get(path) is None
    stamp = set_apart(path)
    known.put(path, stamp, "one", apart=True)
    assert known.get(path) == "one"
    path.write_bytes(b"2")
    assert known.get(path) is None
