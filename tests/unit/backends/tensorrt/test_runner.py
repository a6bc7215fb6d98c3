"""Running engines: refusals, their order, and the message on a machine without a driver."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusing

from emca_deploy._machine import find_gpus
from emca_deploy.artifacts import Manifest, manifest_path, read_manifest, sha256_file, write_manifest
from emca_deploy.backends.base import RunOptions, TensorSpec
from emca_deploy.backends.registry import available, open_runner
from emca_deploy.backends.tensorrt.builder import RtxBuilder
from emca_deploy.backends.tensorrt.cuda import GpuFacts, capability_here
from emca_deploy.backends.tensorrt.log import BuildLog
from emca_deploy.backends.tensorrt.runner import RtxRunner
from emca_deploy.backends.tensorrt.runner_checks import check_gpu_fits, check_profile, check_version, profile_of, read_engine
from emca_deploy.backends.tensorrt.runner_execution import not_deserialized
from emca_deploy.backends.tensorrt.settings import TrtSettings
from emca_deploy.errors import EngineError, InputError, MissingError, ModelError
from emca_deploy.machines.nvidia import rtx_refusal

ADA = GpuFacts(0, "NVIDIA L4", "8.9", 23034.0, "12.4")
no_gpu = pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, rtx: Any, net_class: Any) -> Path:
    """A real engine of a 32x32 network, for batches of 1 to 4 on Ada."""
    folder = tmp_path_factory.mktemp("engine")
    model = net_class(quantized=True).save(folder / "net.onnx", "batch", 32)
    RtxBuilder(TrtSettings(batches=(1, 2, 4), targets=("8.9",))).build(model, folder / "net.engine", RunOptions())
    return folder / "net.engine"


@pytest.fixture
def engine(built: Path, tmp_path: Path) -> Path:
    shutil.copy(manifest_path(built), manifest_path(tmp_path / "net.engine"))
    return Path(shutil.copy(built, tmp_path / "net.engine"))


def refusal(path: Path, kind: type[Exception], match: str, **options: Any) -> str:
    with pytest.raises(kind, match=match) as caught:
        RtxRunner(str(path), RunOptions(**options)).open()
    error: Any = caught.value
    assert error.remedy
    return str(error.remedy)


def edit(path: Path, **fields: Any) -> None:
    manifest = read_manifest(path)
    assert manifest is not None
    write_manifest(path, replace(manifest, **fields))


@no_gpu
def test_a_whole_engine_without_a_driver(engine: Path) -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    assert "nvidia-smi" in refusal(engine, MissingError, "no NVIDIA driver is installed here")
    with pytest.raises(MissingError):
        open_runner("tensorrt-rtx", str(engine)).open()


@no_gpu
def test_a_model_is_refused_without_a_driver_before_it_is_built(engine: Path, make_net: Callable[..., Path]) -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    refusal(make_net(), MissingError, "no NVIDIA driver")


@pytest.mark.parametrize("damage", ["truncated", "a byte", "empty", "another file"])
def test_bytes_that_the_manifest_does_not_describe(engine: Path, damage: str) -> None:
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    damages = {"truncated": content[:1000], "a byte": content, "empty": b"", "another file": b"not an engine" * 100}
    engine.write_bytes(damages[damage])
    assert "emca-deploy build" in refusal(engine, EngineError, "sha256 differs")


def test_an_engine_without_a_manifest(engine: Path) -> None:
    manifest_path(engine).unlink()
    assert f"{engine.name}.manifest.json" in refusal(engine, EngineError, "not trusted")


def test_a_manifest_that_is_none(engine: Path) -> None:
    manifest_path(engine).write_text("{}")
    refusal(engine, ModelError, "not a manifest")


def test_the_manifest_of_a_model_is_no_engines(engine: Path) -> None:
    edit(engine, kind="onnx")
    refusal(engine, EngineError, "not trusted")


def test_another_backends_engine(engine: Path) -> None:
    edit(engine, backend="tensorrt")
    assert refusal(engine, InputError, "engine of backend 'tensorrt'") == "use --backend tensorrt"


def test_an_engine_of_another_version(engine: Path, rtx: Any) -> None:
    edit(engine, versions={"tensorrt-rtx": "1.5.0.1"})
    remedy = refusal(engine, EngineError, f"tensorrt-rtx 1.5.0.1.*{rtx.__version__}")
    assert "emca-deploy build" in remedy
    assert "--backend tensorrt-rtx" in remedy


@pytest.mark.parametrize("batch", [5, 64])
def test_a_batch_outside_the_profile_is_refused_before_the_driver_is_asked(engine: Path, batch: int) -> None:
    assert f"--batches 1,2,{batch}" in refusal(engine, InputError, f"takes batches of 1 to 4, not {batch}", batch=batch)


def test_a_precision_that_engines_have_not_got(engine: Path) -> None:
    refusal(engine, InputError, "bf16", precision="bf16")


def test_what_is_read_is_what_was_hashed(engine: Path) -> None:
    content, manifest = read_engine(engine, "tensorrt-rtx")
    assert content == engine.read_bytes()
    assert manifest.sha256 == sha256_file(engine)
    assert profile_of(manifest) == (1, 2, 4)


def test_the_batch_of_a_loaded_engine_fits_its_own_profile() -> None:
    """Where the manifest names no batches, only the loaded engine knows them."""
    spec = TensorSpec("images", "float32", ("batch", 3, 4, 4))
    for asked, fixed, largest in ((None, None, 4), (2, 2, 2)):
        runner = RtxRunner("net.engine", RunOptions(batch=asked))
        runner._profile = (1, 2, 4)
        assert runner._batches(spec) == (replace(spec, shape=(fixed or "batch", 3, 4, 4)), fixed, largest)
    runner = RtxRunner("net.engine", RunOptions(batch=5))
    runner._profile = (1, 2, 4)
    with refusing(InputError, "1 to 4", 5):
        runner._batches(spec)


def test_profiles() -> None:
    for batch in (2, 3, 8):
        check_profile(Path("e"), (2, 4, 8), batch)
        check_profile(Path("e"), None, batch)
    with refusing(InputError, "2 to 8", 1) as caught:
        check_profile(Path("e"), (2, 4, 8), 1)
    assert "--batches 1,4,8" in caught.value.remedy


class TestGpu:
    def test_the_one_it_was_built_for(self, engine: Path) -> None:
        _, manifest = read_engine(engine, "tensorrt-rtx")
        check_gpu_fits(engine, manifest, ADA)

    def test_another(self, engine: Path) -> None:
        _, manifest = read_engine(engine, "tensorrt-rtx")
        with refusing(EngineError, engine, "sm_89", "GPU 1", "NVIDIA GeForce RTX 5090", "sm_120") as caught:
            check_gpu_fits(engine, manifest, replace(ADA, index=1, name="NVIDIA GeForce RTX 5090", capability="12.0"))
        assert "--target-capability 12.0" in caught.value.remedy

    @pytest.mark.parametrize(("capability", "fits"), [("8.0", True), ("12.0", True), ("7.5", False)])
    def test_hardware_compatible_ones_run_from_ampere_on(self, capability: str, fits: bool) -> None:
        manifest = Manifest("engine", "", "fp32", "tensorrt", details={"tensorrt": {"hardware_compatible": True}})
        gpu = replace(ADA, capability=capability)
        if fits:
            check_gpu_fits(Path("e"), manifest, gpu)
            return
        with refusing(EngineError):
            check_gpu_fits(Path("e"), manifest, gpu)


@pytest.mark.parametrize(
    ("compatible", "here", "runs"),
    [(False, "10.3.0", True), (False, "10.4.0", False), (True, "10.10.0", True), (True, "10.2.9", False)],
)
def test_versions(compatible: bool, here: str, runs: bool) -> None:
    details = {"tensorrt": {"version_compatible": compatible}}
    manifest = Manifest("engine", "", "fp32", "tensorrt", versions={"tensorrt": "10.3.0"}, details=details)
    if runs:
        check_version(Path("e"), manifest, here)
        return
    with refusing(EngineError, "10.3.0", here):
        check_version(Path("e"), manifest, here)


@pytest.mark.parametrize(
    ("message", "kind", "match"),
    [
        ("IRuntime::deserializeCudaEngine: Error Code 2: OutOfMemory", InputError, "too little memory"),
        ("getPluginCreator could not find plugin Foo version 1", MissingError, "plugin"),
        ("Error Code 1: Cuda Runtime (cudaError 35: CUDA driver version is insufficient)", MissingError, "cudaError 35"),
        ("Version tag does not match", EngineError, "does not load it"),
    ],
)
def test_what_tensorrt_says_to_an_engine(message: str, kind: type[Exception], match: str) -> None:
    log = BuildLog()
    log.add(1, message)
    error = not_deserialized("net.engine", log)
    assert type(error) is kind
    assert match in error.problem
    assert "net.engine" in error.problem


def test_infer_before_open(engine: Path) -> None:
    runner = RtxRunner(str(engine), RunOptions())
    with pytest.raises(RuntimeError, match="not open"):
        runner.infer(np.zeros((1, 3, 32, 32), np.float32))
    assert runner.device_ms is None
    runner.close()
    assert runner.describe()["runtime"] == "tensorrt-rtx"


@pytest.mark.skipif(rtx_refusal(capability_here()) is None, reason="needs a GPU that TensorRT-RTX does not support")
def test_on_a_gpu_it_does_not_know(engine: Path, make_net: Callable[..., Path]) -> None:
    for artifact in (engine, make_net(quantized=False)):
        with (
            refusing(MissingError, "compute capability"),
            RtxRunner(str(artifact), RunOptions()),
        ):
            pass


def test_a_gpu_that_tensorrt_rtx_does_not_know_needs_no_other_build() -> None:
    details = {"tensorrt": {"targets": ["8.9"]}, "machine": {"instruction_sets": ["sm_89"]}}
    manifest = Manifest("engine", "", "fp32", "tensorrt-rtx", details=details)
    with pytest.raises(MissingError, match=r"compute capability 9\.0") as caught:
        check_gpu_fits(Path("e"), manifest, GpuFacts(0, "NVIDIA H200", "9.0", 143000.0, "13.0"))
    assert "onnxruntime-gpu" in caught.value.remedy
    assert rtx_refusal("8.9") is rtx_refusal(None) is None


@pytest.mark.skipif(
    capability_here() is None or rtx_refusal(capability_here()) is not None, reason="needs a GPU that TensorRT-RTX supports"
)
@pytest.mark.parametrize("batch", [None, 2])
def test_on_a_gpu(make_net: Callable[..., Path], rtx: Any, batch: int | None) -> None:
    """Logits, the CUDA graph and both clocks; this test needs a supported GPU."""
    import onnxruntime

    model = make_net(quantized=False)
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    expected = onnxruntime.InferenceSession(str(model)).run(None, {"images": images})[0]
    with RtxRunner(str(model), RunOptions(batch=batch)) as runner:
        for _ in range(3):
            logits = runner.infer(images)
            assert np.abs(logits - expected).max() <= 1e-2 * np.abs(expected).max()  # TensorRT's fp32 may be TF32
            assert runner.device_ms is not None
            assert runner.device_ms > 0
        assert runner.describe()["cuda_graph"] == (batch is not None)
        with pytest.raises(InputError):
            runner.infer(images[:0])


@no_gpu
def test_the_status_says_what_is_missing() -> None:
    status = available()["tensorrt-rtx"]
    if status.version is not None:
        assert "NVIDIA GPU" in str(status.reason)


def test_a_build_records_what_the_runner_asks_for(engine: Path) -> None:
    recorded = json.loads(manifest_path(engine).read_text())["details"]
    assert recorded["machine"]["instruction_sets"] == ["sm_89"]
    assert (recorded["tensorrt"]["version_compatible"], recorded["tensorrt"]["hardware_compatible"]) == (False, False)
