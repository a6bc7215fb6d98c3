"""The runner and the CUDA layer on a simulated CUDA runtime and TensorRT: neither runs without an NVIDIA GPU."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusing
from simulated_gpu import DETECTOR_TENSORS, Cuda, Trt

from emca_deploy.artifacts import Manifest, read_manifest, write_manifest
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.tensorrt import cuda, runner
from emca_deploy.backends.tensorrt.runner import RtxRunner, TrtRunner
from emca_deploy.errors import EmcaError, EngineError, InputError, MissingError, ModelError, WorkerError


@pytest.fixture
def rt(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    simulated = Cuda(2)
    monkeypatch.setattr(cuda, "import_optional", lambda name: simulated)
    return simulated


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rt: Cuda) -> Callable[..., Any]:
    """Return a function that opens an engine for batches of 1 to 4, or of a fixed batch, on the simulated GPU."""

    def make(kind: type[TrtRunner] = TrtRunner, batch: int = -1, refuses: str = "", device: int = 0, **changes: Any) -> Any:
        path = tmp_path / "net.engine"
        path.write_bytes(b"an engine")
        details = {"machine": {"instruction_sets": ["sm_89"]}, "tensorrt": {"batches": [1, 2, 4], **changes.pop("tensorrt", {})}}
        versions = {kind.backend: changes.pop("version", "10.3.0" if kind is TrtRunner else "1.7.1")}
        write_manifest(path, Manifest("engine", "", "fp32", kind.backend, versions=versions, details=details))
        trt = Trt(rt, batch, refuses)
        trt.__version__ = "10.3.0" if kind is TrtRunner else "1.7.1"
        monkeypatch.setattr(runner, "import_optional", lambda name: trt)
        return kind(str(path), RunOptions(**changes), device), trt

    return make


def images_of(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 3, 4, 4)).astype(np.float32)


def test_facts_of_the_gpus(rt: Cuda) -> None:
    first, second = cuda.list_gpus()
    assert first == cuda.GpuFacts(0, "GPU 0", "8.9", 3.0, "12.6", "0000:00:00.0")
    assert (second.index, second.bus_id) == (1, "0000:01:00.0")
    rt.minors = (9, 6)
    assert [cuda.capability_here(), *map(cuda.capability_here, range(3))] == ["8.9", "8.9", "8.6", None]
    for count, words in ((1, "has one, gpu:0"), (2, "has 2")):
        rt.count = count
        with pytest.raises(MissingError) as caught:
            cuda.open_gpu(count)
        assert words in caught.value.remedy
    gpu = cuda.open_gpu(1)
    assert (rt.device, gpu.facts.index, gpu.stream) == (1, 1, 77)
    gpu.close()
    gpu.close()
    assert (rt.alive, rt.freed) == ({}, ["stream"])


def test_a_failing_call_is_named(rt: Cuda) -> None:
    rt.broken = "cudaMalloc"
    gpu = cuda.open_gpu(0)
    with refusing(WorkerError, "cudaErrorIllegalAddress", "cudaMalloc", "an illegal address"):
        gpu.memory(16)


def test_memory_is_given_back_in_reverse_order(rt: Cuda) -> None:
    gpu = cuda.open_gpu(0)
    images, place = gpu.pinned((2, 3)), gpu.memory(24)
    images[:] = np.arange(6, dtype=np.float32).reshape(2, 3)
    gpu.upload(place, images)
    back = gpu.pinned((2, 3))
    gpu.download(back, place)
    assert np.isnan(back).all()
    gpu.wait()
    np.testing.assert_array_equal(back, images)
    event = gpu.event()
    gpu.record(event)
    assert rt.flags == [0]
    gpu.close()
    assert (rt.alive, rt.freed) == ({}, ["event", "host", "device", "host", "stream"])


@pytest.mark.parametrize("fails", [False, True])
def test_a_graph_is_captured_or_given_up(rt: Cuda, fails: bool) -> None:
    gpu = cuda.open_gpu(0)
    event, ran = gpu.event(), []

    def work() -> None:
        gpu.record(event)
        rt._push(lambda: ran.append(1))
        if fails:
            raise ModelError("no", "none")

    if fails:
        with pytest.raises(ModelError):
            gpu.capture(work)
        assert rt.graph is None
    else:
        graph = gpu.capture(work)
        assert rt.freed == ["graph"]
        for _ in range(2):
            gpu.launch(graph)
            gpu.wait()
        assert ran == [1, 1]
    gpu.record(event)
    assert rt.flags == [1, 0]  # external while capturing
    gpu.close()
    assert "executable" not in rt.alive.values()
    assert (rt.freed[-1], fails or "executable" in rt.freed) == ("stream", True)


@pytest.mark.parametrize(("profile", "batch"), [((1, 4, 4), "batch"), ((1, 1, 4), "batch"), ((4, 4, 4), 4)])
def test_a_profile_of_one_batch_fixes_it(opened: Callable[..., Any], rt: Cuda, profile: tuple[int, ...], batch: object) -> None:
    run, trt = opened()
    trt.profile = profile
    with run:
        assert run.input.shape == (batch, 3, 4, 4)
    assert rt.alive == {}


def test_an_engine_of_several_batches(opened: Callable[..., Any], rt: Cuda) -> None:
    run, trt = opened()
    assert run.describe() == {"runtime": "tensorrt", "version": "", "device": "gpu:0"}
    with run:
        for count in (1, 4, 2):
            images = images_of(count)
            np.testing.assert_allclose(run.infer(images), images[:, :2].sum(axis=(2, 3)), rtol=1e-5)
            assert run.device_ms == 2
        for images in (images_of(5), images_of(0), images_of(1).astype(np.float64)):
            with pytest.raises(InputError):
                run.infer(images)
        assert (run.input.shape, run.output.shape) == (("batch", 3, 4, 4), ("batch", 2))
        found = run.describe()
        assert (found["version"], found["cuda_graph"], found["batch"], found["profile"]) == ("10.3.0", False, "batch", [1, 2, 4])
        assert found["gpu"]["name"] == "GPU 0"
        assert (trt.runtime.engine_host_code_allowed, trt.config) == (False, None)
    assert (rt.alive, run.device_ms) == ({}, None)
    with pytest.raises(RuntimeError):
        run.infer(images_of(1))


@pytest.mark.parametrize(("batch", "asked"), [(-1, 3), (4, None), (4, 4)])
def test_a_fixed_batch_is_one_graph(opened: Callable[..., Any], rt: Cuda, batch: int, asked: int | None) -> None:
    size = asked or batch
    run, _ = opened(TrtRunner, batch)
    run._options = replace(run._options, batch=asked)
    with run:
        images = images_of(size)
        np.testing.assert_allclose(run.infer(images), images[:, :2].sum(axis=(2, 3)), rtol=1e-5)
        found = run.describe()
        assert (found["cuda_graph"], found["batch"], found["profile"]) == (True, size, [1, 2, 4] if batch < 0 else None)
        assert run.device_ms == 2
        with pytest.raises(InputError):
            run.infer(images_of(size - 1))
    assert rt.alive == {}


def test_an_engine_of_a_detector(opened: Callable[..., Any], rt: Cuda) -> None:
    run, trt = opened(batch=1)
    trt.tensors = DETECTOR_TENSORS
    with run:
        images = images_of(1)
        scores = run.infer(images)
        np.testing.assert_allclose(scores, images[:, :2].sum(axis=(2, 3)), rtol=1e-5)
        found = run.answers()
        assert (run.task, run.output.name, list(found)) == ("detection", "scores", list(DETECTOR_TENSORS)[1:])
        np.testing.assert_array_equal(found["scores"], scores)
        assert (found["num_detections"].tolist(), found["labels"].tolist()) == ([1], [[3, 3]])
        assert (found["boxes"].shape, found["boxes"].dtype) == ((1, 2, 4), np.float32)
    assert rt.alive == {}


@pytest.mark.parametrize("asked", [1, 5])
def test_an_engine_of_another_batch_is_refused(opened: Callable[..., Any], rt: Cuda, asked: int) -> None:
    run, _ = opened(TrtRunner, 4)
    run._options = replace(run._options, batch=asked)
    with refusing(InputError, "net.engine"):
        run.open()
    assert rt.alive == {}


@pytest.mark.parametrize(("refuses", "error"), [("engine", EngineError), ("context", EngineError), ("run", ModelError)])
def test_what_tensorrt_refuses_leaves_nothing_on_the_gpu(
    opened: Callable[..., Any], rt: Cuda, refuses: str, error: type[EmcaError]
) -> None:
    run, _ = opened(refuses=refuses)
    with pytest.raises(error), run:
        run.infer(images_of(1))
    assert rt.alive == {}


def test_an_engine_that_brings_its_runtime_may_run_its_code(opened: Callable[..., Any]) -> None:
    run, trt = opened(tensorrt={"version_compatible": True}, version="10.2.0")
    with run:
        assert trt.runtime.engine_host_code_allowed is True
    run, _ = opened(version="10.2.0")
    with refusing(EngineError, "10.2.0", "10.3.0"):
        run.open()


def test_an_engine_for_another_gpu_is_refused_and_the_gpu_freed(opened: Callable[..., Any], rt: Cuda) -> None:
    rt.minors = (6, 9)
    run, _ = opened()
    with refusing(EngineError, "net.engine", "sm_89", "sm_86"):
        run.open()
    assert rt.alive == {}


def test_tensorrt_rtx_compiles_for_each_shape_at_once(opened: Callable[..., Any], rt: Cuda) -> None:
    run, trt = opened(RtxRunner, device=1)
    with run:
        assert trt.config.dynamic_shapes_kernel_specialization_strategy == "eager"
        assert (run.describe()["device"], run.describe()["runtime"], rt.device) == ("gpu:1", "tensorrt-rtx", 1)


@pytest.mark.parametrize(("kind", "targets"), [(TrtRunner, ()), (RtxRunner, ("8.9",))])
def test_a_model_is_built_for_this_gpu_first(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[TrtRunner], targets: tuple[str, ...]
) -> None:
    run, _ = opened(kind)
    made: list[Any] = []

    class Builder:
        def __init__(self, settings: Any) -> None:
            made.append(settings.targets)

        def build(self, model: Path, output: Path, options: RunOptions) -> None:
            made.append((model.name, options.threads))
            output.write_bytes(b"built")
            manifest = read_manifest(tmp_path / "net.engine")
            assert manifest is not None
            write_manifest(output, replace(manifest, sha256=hashlib.sha256(b"built").hexdigest()))

    monkeypatch.setattr(kind, "builder", Builder)
    (tmp_path / "net.onnx").write_bytes(b"a model")
    model = kind(str(tmp_path / "net.onnx"), replace(run._options, threads=3))
    with model:
        assert model.infer(images_of(1)).shape == (1, 2)
    assert made == [targets, ("net.onnx", 3)]


@pytest.mark.parametrize("batch", [-1, 2])
def test_an_engine_of_plain_pixels_takes_them_and_float_images(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(Trt, "tensors", {**Trt.tensors, "images": ((4, 4, 3), np.uint8)})
    own, _ = opened(batch=batch)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    with own:
        assert own.input.shape[1:] == (3, 4, 4)
        assert own.to_native(images).dtype == np.uint8
        wanted = images[:, :2].sum(axis=(2, 3))
        for given in (pixels, images):
            assert np.array_equal(own.infer(given), wanted)
