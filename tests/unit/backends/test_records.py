"""The list of backends: its names, which occur nowhere else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import emca_deploy
from emca_deploy.backends import records
from emca_deploy.backends.backend import Backend, load_part
from emca_deploy.backends.records import BACKENDS, names_where, one_of

PACKAGE = Path(emca_deploy.__file__).parent
PARTS = ("runner", "on_gpu", "builder", "layers", "recipe", "trouble", "tunables")

ALLOWED = {
    "exporting": "exports with PyTorch and ONNX Runtime, and records their versions",
    "bundles/package.py": "the layout of ONNX Runtime's model packages",
    "bundles/layouts": "servers name the libraries that they run",
    "bundles/code.py": "programs for OpenVINO and ONNX Runtime",
    "calibration": "simulates with ONNX Runtime, and records its version",
    "networks": "the networks are PyTorch's",
    "api/models.py": "counts with PyTorch",
    "machines/jetson": "what a board has installed, by package",
    "machines/nvidia.py": "which GPUs each of NVIDIA's libraries has kernels for",
    "artifacts.py": "a field of manifests",
    "targets/by_trtexec.py": "a field of manifests",
    "api/build.py": "a field of manifests",
    "commands/build.py": "a field of manifests",
    "commands/doctor.py": "a field of a board's facts",
    "api/teacher.py": "PyTorch computes a checkpoint's network",
    "commands/devices.py": "a field of a board's facts",
}
"""Folders or files named after a library that is also a backend, with the reason."""


def named_in(path: Path) -> Iterator[str]:
    names = {name for name, record in BACKENDS.items() if not record.hidden}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and node.value in names:
            yield f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno}: {node.value}"


def test_only_its_own_folder_names_a_backend() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).as_posix()
        own = inside.startswith("backends/") and inside.count("/") > 1
        if not own and not inside.startswith(tuple(ALLOWED)):
            found += list(named_in(path))
    assert found == []


def test_every_part_that_a_record_names_is_there() -> None:
    for record in BACKENDS.values():
        for part in PARTS:
            place = getattr(record, part)
            if place:
                assert callable(load_part(place)) or part == "recipe", (record.name, part)


def test_a_record_is_read_without_the_backends_code() -> None:
    assert names_where(needs_gpu=True) == ("tensorrt", "tensorrt-rtx")
    assert names_where(checkpoints=True) == ("torch",)
    assert "fake" not in names_where()


@pytest.mark.parametrize(("names", "text"), [((), ""), (("a",), "a"), (("a", "b"), "a or b"), (("a", "b", "c"), "a, b or c")])
def test_names_in_a_sentence(names: tuple[str, ...], text: str) -> None:
    assert one_of(names) == text


class Entry:
    def __init__(self, name: str, found: object) -> None:
        self.name, self.value, self._found = name, f"{name}:BACKEND", found

    def load(self) -> object:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


def test_records_of_others_come_last_and_replace_none(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Backend("mine", runner="x:y")
    others = [Entry("mine", mine), Entry("openvino", Backend("openvino")), Entry("odd", 3), Entry("old", ValueError("too old"))]
    monkeypatch.setattr(records, "entry_points", lambda group: others)
    found = records._by_name()
    assert list(found)[-3:] == ["mine", "odd", "old"]
    assert found["mine"] is mine
    assert found["openvino"] is BACKENDS["openvino"]
    assert "too old" in str(found["old"].failure)
    assert found["odd"].failure
