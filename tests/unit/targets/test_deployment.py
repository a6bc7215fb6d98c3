"""What `deploy` builds for a target, and the backend that runs it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy.api.parts import find_parts
from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.torch import BACKEND as TORCH
from emca_deploy.errors import EngineError, InputError, MissingError, UnknownNameError
from emca_deploy.harness.measure.worker_main import make_runner
from emca_deploy.targets.cpu import CpuTarget
from emca_deploy.targets.deployment import BuildStep, BuiltCandidate, Deployment, Models, named_apart
from emca_deploy.targets.gpu import GpuTarget, gpu_steps
from emca_deploy.targets.local import LocalTarget
from zoo.recipes import calibration_options

SIZE = 32


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, random_model: Callable[..., Path]) -> Models:
    """A network in every form that a target needs, calibrated on few images, since its accuracy is not tested."""
    pytest.importorskip("torch")
    from safetensors.torch import save_file

    from emca_deploy.artifacts import Preprocessing
    from emca_deploy.calibration.calibrate import calibrate_model
    from emca_deploy.data.bundled import bundled_calibration_images
    from emca_deploy.data.sources import open_source
    from emca_deploy.networks.registry import create_model

    folder = tmp_path_factory.mktemp("models")
    save_file(create_model("resnet18", 10).state_dict(), folder / "net.safetensors")
    fp32 = random_model("resnet18", SIZE)
    images = open_source(bundled_calibration_images(), Preprocessing.for_size(SIZE))
    int8 = {}
    for backend in ("onnxruntime", "tensorrt-rtx"):
        wanted = calibration_options(backend, method="minmax", samples=2, recover="none", table=folder / "ranges.json")
        int8[backend] = calibrate_model(fp32, images, folder / f"{backend}.onnx", wanted).onnx
    return Models(folder / "net.safetensors", fp32, random_model("resnet18", SIZE, "fp16"), int8, SIZE)


def built(target: LocalTarget, steps: Iterable[BuildStep], models: Models) -> list[BuiltCandidate]:
    return [candidate for step in steps for candidate in target.build_step(step, models, 1)]


def built_on_gpu(models: Models, *backends: str, device: int = 0) -> list[BuiltCandidate]:
    return built(GpuTarget(f"gpu:{device}", device), gpu_steps(backends, "8.9", device), models)


def test_the_cpu_gets_fp32_and_int8_engines(models: Models) -> None:
    found = built(CpuTarget(), CpuTarget().deployment(["onnxruntime"]).steps, models)
    assert [candidate.name for candidate in found] == ["onnxruntime fp32", "onnxruntime int8"]
    with make_runner(found[1].spec) as runner:  # type: ignore[attr-defined]
        assert runner.input.shape == (1, 3, SIZE, SIZE)


def test_a_gpu_gets_pytorch_engines_and_onnx_runtime(models: Models) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    found = built_on_gpu(models, "torch", "tensorrt-rtx", "onnxruntime", device=1)
    assert [candidate.name for candidate in found] == [
        *(f"torch {variant}" for variant in TORCH.variants),
        *(f"tensorrt-rtx {precision}" for precision in ("fp32", "fp16", "int8")),
        "onnxruntime-cuda fp32", "onnxruntime-cuda fp16",
    ]  # fmt: skip
    assert {candidate.spec.target for candidate in found} == {"gpu:1"}
    assert [candidate.spec.precision for candidate in found if candidate.spec.backend == "tensorrt-rtx"] == [
        "fp32",
        "fp16",
        "int8",
    ]
    engine = next(candidate.path for candidate in found if candidate.name == "tensorrt-rtx int8")
    manifest = read_manifest(engine)
    assert manifest is not None
    assert manifest.details["machine"]["instruction_sets"] == ["sm_89"]
    assert manifest.details["tensorrt"]["batches"] == [1, 1, 1]


def test_pytorch_is_measured_at_the_models_size(models: Models) -> None:
    """The checkpoint does not contain the size, and ImageNet's would give other latencies."""
    first = built_on_gpu(models, "torch")[0]
    on_this_machine = {**first.spec.kwargs, "device": "cpu"}
    from emca_deploy.backends.torch.gpu import open_at_size

    assert first.spec.factory.endswith(f":{open_at_size.__name__}")
    with open_at_size(**on_this_machine) as runner:
        assert runner.input.shape == (1, 3, SIZE, SIZE)


def test_pytorch_is_measured_with_the_weights_that_were_exported(models: Models) -> None:
    """With a checkpoint that has a moving average, every candidate uses the same weights."""
    chosen = replace(models, chosen={"weights": "plain", "prefix": "net"})
    kwargs = built_on_gpu(chosen, "torch")[0].spec.kwargs
    assert (kwargs["weights"], kwargs["prefix"]) == ("plain", "net")


def test_an_engine_for_a_gpu_runs_nowhere_else(models: Models) -> None:
    """The harness gets the same candidate as from `profile --target gpu`: it fails only because there is no GPU."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    candidate = built_on_gpu(models, "tensorrt-rtx")[0]
    with pytest.raises((MissingError, EngineError), match=r"no NVIDIA driver|was built for"):
        make_runner(candidate.spec).open()


def test_what_a_gpu_needs_depends_on_the_backends() -> None:
    def on_gpu(*backends: str) -> Deployment:
        return Deployment("gpu:0", backends, gpu_steps(backends, "8.9"))

    assert on_gpu("torch", "onnxruntime").processes == 1  # loading takes long there
    assert on_gpu("torch", "onnxruntime").needs_half
    assert on_gpu("torch", "onnxruntime").int8_backends == ()
    assert on_gpu("torch", "tensorrt-rtx").int8_backends == ("tensorrt-rtx",)
    assert not on_gpu("torch").needs_half
    on_processor = CpuTarget().deployment(["onnxruntime"])
    assert not on_processor.needs_half
    assert on_processor.int8_backends == ("onnxruntime",)


def test_only_tensorrt_rtx_is_built_for_a_named_capability() -> None:
    named = {step.backend: step.capabilities for step in gpu_steps(("tensorrt", "tensorrt-rtx"), "8.9")}
    assert named == {"tensorrt": (), "tensorrt-rtx": ("8.9",)}


def test_random_weights_have_no_checkpoint_to_run() -> None:
    assert built_on_gpu(Models(None, Path("model.onnx")), "torch") == []


def test_the_cpu_is_found_with_the_backends_asked_for() -> None:
    (part,) = find_parts(["cpu"], ["onnxruntime", "onnxruntime"])
    assert (part.target, part.deployment.backends) == (CpuTarget(), ("onnxruntime",))


@pytest.mark.parametrize(
    ("targets", "backends", "error", "words"),
    [
        ([], [], InputError, "--targets"),
        (["cpu", "cpu"], [], InputError, "--targets"),
        (["gpu", "gpu:0"], [], InputError, "--targets"),
        (["cpus"], [], UnknownNameError, "'cpus'"),
        (["cpu:0"], [], UnknownNameError, "'cpu:0'"),
        (["cpu"], ["tensorflow"], UnknownNameError, "'tensorflow'"),
        (["cpu"], ["torch"], InputError, "torch"),
        (["cpu"], ["tensorrt-rtx"], InputError, "'tensorrt-rtx'"),
    ],
)
def test_refusals(targets: list[str], backends: list[str], error: type[Exception], words: str) -> None:
    if "tensorrt-rtx" in backends:
        pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    with refusing(error, words):
        find_parts(targets, backends)


def test_names_are_told_apart(models: Models) -> None:
    both = [*built_on_gpu(models, "torch"), *built_on_gpu(models, "torch", device=1)]
    found = named_apart(both)
    assert len({candidate.name for candidate in found}) == len(both)
    assert found[-1].name == f"torch {TORCH.variants[-1]} on gpu:1"
    assert all(candidate.name == candidate.spec.name for candidate in found)
