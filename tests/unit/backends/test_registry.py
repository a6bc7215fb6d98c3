"""Names of backends, and the choice of one for an artifact."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy.artifacts import Manifest, write_manifest
from emca_deploy.backends import registry
from emca_deploy.backends.registry import BACKENDS, available, backend_of, get_builder, open_runner
from emca_deploy.errors import EngineError, InputError, MissingError, ModelError, UnknownNameError


@pytest.fixture
def model(make_onnx: Callable[..., Path]) -> Path:
    return make_onnx()


def placed(model: Path, kind: str, backend: str | None) -> Path:
    write_manifest(model, Manifest(kind, "", "int8", backend))  # type: ignore[arg-type]
    return model


def test_a_plain_model_runs_where_asked_else_on_onnx_runtime(model: Path) -> None:
    assert backend_of(model, None) == "onnxruntime"
    assert backend_of(model, "openvino") == "openvino"
    assert backend_of(placed(model, "onnx", None), None) == "onnxruntime"


def test_an_int8_placement_speaks_only_where_nobody_asks(model: Path) -> None:
    placed(model, "onnx", "onnxruntime")
    assert backend_of(model, "openvino") == "openvino"
    assert backend_of(placed(model, "onnx", "tensorrt"), None) == "onnxruntime"


def test_an_int8_placement_is_run_where_it_was_placed(model: Path) -> None:
    pytest.importorskip("openvino")
    assert backend_of(placed(model, "onnx", "openvino"), None) == "openvino"


def test_an_engines_manifest_decides(model: Path) -> None:
    engine = placed(model, "engine", "openvino")
    assert backend_of(engine, None) == backend_of(engine, "openvino") == "openvino"
    with refusing(InputError, engine, "'openvino'"):
        backend_of(engine, "onnxruntime")


@pytest.mark.parametrize("name", ["a.pth", "b.safetensors", "c.pth.tar", "D.PT", "e.ckpt", "model.safetensors.index.json"])
def test_a_checkpoint_is_torchs(name: str) -> None:
    assert backend_of(Path(name), None) == backend_of(Path(name), "torch") == "torch"
    with pytest.raises(InputError, match="checkpoint"):
        backend_of(Path(name), "openvino")


def test_a_fake_is_a_fake(model: Path) -> None:
    assert backend_of(Path("fake:latency_ms=2,size=8"), None) == "fake"
    with pytest.raises(InputError):
        backend_of(Path("fake:"), "torch")
    for asked in ("fake", "torch"):
        with refusing(InputError, f"'{asked}'"):
            backend_of(model, asked)


def test_a_file_of_no_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "engine.bin"
    path.write_bytes(b"?")
    with refusing(EngineError, path):
        backend_of(path, "openvino")


def test_a_damaged_manifest_is_named(model: Path) -> None:
    model.with_name("model.onnx.manifest.json").write_text("{")
    with pytest.raises(ModelError, match=r"manifest\.json"):
        backend_of(model, None)


@pytest.mark.parametrize(
    "call", [lambda: open_runner("openvno", "x"), lambda: get_builder("openvno"), lambda: backend_of(Path("x"), "openvno")]
)
def test_an_unknown_name_gets_the_nearest(call: Callable[[], object]) -> None:
    with pytest.raises(UnknownNameError, match="openvno") as caught:
        call()
    assert "nearest: openvino" in caught.value.remedy
    assert "fake" not in caught.value.remedy


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_what_a_gpu_backend_lacks(name: str, model: Path) -> None:
    status = available()[name]
    if status.version is None:
        assert "pip install" in str(status.remedy)
        for call in (lambda: get_builder(name), lambda: open_runner(name, str(model))):
            with refusing(MissingError, f"'{name}'"):
                call()
        return
    assert get_builder(name).build
    if status.reason is None:
        pytest.skip("needs a machine without a GPU")
    assert "GPU" in status.reason
    with pytest.raises(MissingError) as caught:
        open_runner(name, str(model)).open()
    assert caught.value.exit_code == 3


def test_what_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "openvino" else find_spec(name))
    with refusing(MissingError, "openvino") as caught:
        open_runner("openvino", "model.onnx")
    assert "pip install 'emca-deploy[openvino]'" in caught.value.remedy
    assert available()["openvino"].version is None
    assert available()["onnxruntime"].reason is None


@pytest.mark.parametrize("name", ["torch", "fake"])
def test_no_builder_without_engines(name: str) -> None:
    if available()[name].reason:
        pytest.skip(str(available()[name].reason))
    with refusing(InputError, name):
        get_builder(name)


@pytest.mark.parametrize("options", [{"threads": 0}, {"batch": 0}, {"batch": -1}])
def test_counts_are_positive(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="give") as caught:
        open_runner("fake", "fake:", **options)
    assert "1 or more" in caught.value.remedy


def test_knowing_and_choosing_a_backend_imports_no_runtime(model: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from emca_deploy.backends.registry import available, backend_of, get_builder, open_runner
available(); backend_of(Path({str(model)!r}), None)
for name, status in available().items():
    if not status.reason: open_runner(name, "x.onnx")
print([name for name in ("torch", "openvino", "onnxruntime", "onnx") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_backend_is_known_to_available() -> None:
    assert list(available()) == list(BACKENDS)
