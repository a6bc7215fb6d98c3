"""What is installed, found without importing it."""

import sys
from pathlib import Path

import pytest

from emca_deploy._optional import CUDA_PARTS, has_cuda


@pytest.mark.parametrize(
    ("module", "file"), [("torch", "lib/libtorch_cuda.so"), ("onnxruntime", "capi/libonnxruntime_providers_cuda.so")]
)
def test_a_build_for_cuda_is_told_by_its_files(module: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / module
    (package / file).parent.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not to be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)  # of a module that is imported already find_spec says where that is
    assert not has_cuda(module)
    (package / file).touch()
    assert has_cuda(module)


def test_a_module_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert not has_cuda("torch")
    assert set(CUDA_PARTS) == {"onnxruntime", "torch"}
