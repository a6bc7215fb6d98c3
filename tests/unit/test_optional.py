"""Installed packages are found without importing them."""

import sys
from pathlib import Path

import pytest

from emca_deploy._optional import has_cuda, package_of
from emca_deploy.backends.backend import Package


@pytest.mark.parametrize(
    ("module", "file"), [("torch", "lib/libtorch_cuda.so"), ("onnxruntime", "capi/libonnxruntime_providers_cuda.so")]
)
def test_a_build_for_cuda_is_told_by_its_files(module: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / module
    (package / file).parent.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not to be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)  # find_spec returns the place of an already imported module
    built = package_of(module)
    assert built is not None
    assert not has_cuda(built)
    (package / file).touch()
    assert has_cuda(built)


def test_a_module_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert not has_cuda(Package("torch", "torch", "2.9", cuda_files="*"))


def test_a_build_for_cuda_is_unknown_where_nothing_tells() -> None:
    assert not has_cuda(Package("json", "json", "0"))
