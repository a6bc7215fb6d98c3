"""The backend that runs each artifact on a GPU, and the recorded facts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy._machine import find_gpus
from emca_deploy.artifacts import Manifest, write_manifest
from emca_deploy.backends.registry import available
from emca_deploy.backends.tensorrt.cuda import capability_here
from emca_deploy.backends.torch import BACKEND as TORCH
from emca_deploy.errors import InputError, MissingError, UnknownNameError
from emca_deploy.harness.measure.worker_main import make_runner
from emca_deploy.machines.nvidia import rtx_refusal
from emca_deploy.results.codec import to_json
from emca_deploy.targets.candidates import CandidateOptions
from emca_deploy.targets.gpu import GpuTarget, _spec, check_gpu, ways_to_run

no_gpu = pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")


@pytest.fixture
def artifact(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, kind: str = "", backend: str = "") -> Path:
        path = tmp_path / name
        path.write_bytes(b"bytes")
        if kind:
            write_manifest(path, Manifest(kind, "", "int8", backend))  # type: ignore[arg-type]
        return path

    return make


@pytest.mark.parametrize(("target", "index"), [("gpu", 0), ("gpu:0", 0), ("gpu:12", 12)])
def test_targets(target: str, index: int) -> None:
    assert GpuTarget.parse(target) == GpuTarget(f"gpu:{index}", index)


@pytest.mark.parametrize("target", ["gpu:", "gpu:a", "gpu:1:2", "gpu:-1"])
def test_targets_that_are_none(target: str) -> None:
    with refusing(InputError, f"'{target}'"):
        GpuTarget.parse(target)


@no_gpu
def test_without_a_gpu(artifact: Callable[..., Path]) -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    path, options = str(artifact("net.pth")), CandidateOptions()
    calls = (
        lambda: check_gpu(0),
        lambda: GpuTarget().candidate(path, None, options),
        lambda: GpuTarget().candidates([path], [], options),
        lambda: GpuTarget().hold().__enter__(),
    )
    for call in calls:
        with refusing(MissingError, "'gpu:0'", "NVIDIA"):
            call()


def test_the_processors_precisions_are_not_a_gpus(artifact: Callable[..., Path]) -> None:
    path = str(artifact("net.engine", "engine", "tensorrt-rtx"))
    assert json.dumps(to_json(_spec(path, ("tensorrt-rtx", ""), CandidateOptions(), 1))).count("gpu:1") == 1
    with refusing(InputError, "--precision bf16"):
        _spec(path, ("tensorrt-rtx", ""), CandidateOptions(precision="bf16"), 0)


def test_a_candidate_is_made_of_what_the_worker_needs(artifact: Callable[..., Path]) -> None:
    engine, checkpoint = str(artifact("net.engine", "engine", "tensorrt-rtx")), str(artifact("net.pth"))
    options = CandidateOptions(batch=4)
    spec = _spec(engine, ("tensorrt-rtx", ""), options, 1)
    assert (spec.backend, spec.precision, spec.target) == ("tensorrt-rtx", "int8", "gpu:1")
    assert not hasattr(make_runner(spec), "input")  # created but not opened
    half = _spec(checkpoint, ("torch", "compiled fp16"), options, 1)
    assert (half.precision, half.kwargs["variant"], half.kwargs["device"], half.kwargs["batch"]) == (
        "fp16",
        "compiled fp16",
        1,
        4,
    )
    assert half.name == f"torch compiled fp16={checkpoint}"


class TestWays:
    def test_an_engine_runs_as_it_is(self, artifact: Callable[..., Path]) -> None:
        assert ways_to_run(artifact("net.engine", "engine", "tensorrt-rtx"), []) == [("tensorrt-rtx", "")]

    def test_an_engine_runs_on_its_own_backend_only(self, artifact: Callable[..., Path]) -> None:
        with refusing(InputError, "'tensorrt'"):
            ways_to_run(artifact("net.engine", "engine", "tensorrt"), ["tensorrt-rtx"])

    def test_an_engine_for_processors(self, artifact: Callable[..., Path]) -> None:
        with refusing(InputError, "net.ov"):
            ways_to_run(artifact("net.ov", "engine", "openvino"), [])

    def test_a_checkpoint_runs_in_every_way_of_torch(self, artifact: Callable[..., Path]) -> None:
        assert ways_to_run(artifact("net.pth"), []) == [("torch", variant) for variant in TORCH.variants]
        with pytest.raises(InputError, match="'torch'"):
            ways_to_run(artifact("net.pth"), ["onnxruntime"])

    def test_a_model_runs_where_it_is_asked_for(self, artifact: Callable[..., Path]) -> None:
        asked = ["onnxruntime", "tensorrt"]
        assert ways_to_run(artifact("net.onnx"), asked) == [(backend, "") for backend in asked]

    def test_a_model_runs_on_all_that_is_installed(self, artifact: Callable[..., Path]) -> None:
        model = artifact("net.onnx")
        engines = [name for name in ("tensorrt", "tensorrt-rtx") if available()[name].version]
        if not engines:
            with refusing(MissingError, model):
                ways_to_run(model, [])
            return
        if "tensorrt" in engines or rtx_refusal(capability_here()) is None:
            assert ways_to_run(model, [])[0] == (engines[0], "")

    @pytest.mark.parametrize("cuda", [True, False])
    def test_a_gpu_that_tensorrt_rtx_does_not_know(
        self, artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, cuda: bool
    ) -> None:
        if available()["tensorrt-rtx"].version is None or available()["tensorrt"].version is not None:
            pytest.skip("TensorRT-RTX does not run ONNX files on this machine")
        monkeypatch.setattr("emca_deploy.targets.gpu.capability_here", lambda index: "9.0")
        monkeypatch.setattr("emca_deploy.targets.gpu.has_cuda", lambda package: cuda)
        if cuda:
            assert ways_to_run(artifact("net.onnx"), []) == [("onnxruntime", "")]
            return
        with refusing(MissingError, "9.0"):
            ways_to_run(artifact("net.onnx"), [])

    @pytest.mark.parametrize(
        ("backend", "kind", "match"),
        [
            ("openvino", InputError, "does not run on a GPU"),
            ("torch", InputError, "does not run ONNX"),
            ("tensorflow", UnknownNameError, "no backend"),
        ],
    )
    def test_backends_that_do_not(self, artifact: Callable[..., Path], backend: str, kind: type[Exception], match: str) -> None:
        with pytest.raises(kind, match=match):
            ways_to_run(artifact("net.onnx"), [backend])

    def test_no_such_file(self, tmp_path: Path) -> None:
        with refusing(InputError, tmp_path / "net.onnx"):
            ways_to_run(tmp_path / "net.onnx", [])
