"""What `deploy` builds for a target, and what runs it there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.registry import CPU_BACKENDS
from emca_deploy.backends.torch import BACKEND as TORCH
from emca_deploy.errors import EngineError, InputError, MissingError, UnknownNameError
from emca_deploy.pipeline.places import Candidate, CpuPlace, GpuPlace, Models, distinct, find_places
from zoo.recipes import calibration_options

SIZE = 32


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, random_model: Callable[..., Path]) -> Models:
    """A network in every form that a place needs; calibrated on little, for nobody looks at its accuracy."""
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


def built(place: CpuPlace | GpuPlace, models: Models) -> list[Candidate]:
    return [candidate for step in place.steps(models, 1) for candidate in step()]


def test_the_cpu_gets_fp32_and_int8_engines(models: Models) -> None:
    found = built(CpuPlace("cpu", ("onnxruntime",)), models)
    assert [candidate.name for candidate in found] == ["onnxruntime fp32", "onnxruntime int8"]
    with found[1].spec.make() as runner:  # type: ignore[attr-defined]
        assert runner.input.shape == (1, 3, SIZE, SIZE)


def test_a_gpu_gets_pytorch_engines_and_onnx_runtime(models: Models) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    place = GpuPlace("gpu:1", ("torch", "tensorrt-rtx", "onnxruntime"), "8.9")
    assert place.placements == ("tensorrt-rtx",)
    found = built(place, models)
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
    """The checkpoint does not tell the size, and ImageNet's would be another network's work."""
    first = built(GpuPlace("gpu:0", ("torch",), "8.9"), models)[0]
    on_this_machine = {**first.spec.kwargs, "device": "cpu"}
    from emca_deploy.backends.torch.gpu import open_at_size

    assert first.spec.factory.endswith(f":{open_at_size.__name__}")
    with open_at_size(**on_this_machine) as runner:
        assert runner.input.shape == (1, 3, SIZE, SIZE)


def test_pytorch_is_measured_with_the_weights_that_were_exported(models: Models) -> None:
    """Of a checkpoint with a moving average, every candidate has the same weights."""
    chosen = replace(models, chosen={"weights": "plain", "prefix": "net"})
    kwargs = built(GpuPlace("gpu:0", ("torch",), "8.9"), chosen)[0].spec.kwargs
    assert (kwargs["weights"], kwargs["prefix"]) == ("plain", "net")


def test_an_engine_for_a_gpu_runs_nowhere_else(models: Models) -> None:
    """What is handed to the harness is what `profile --target gpu` hands to it: it fails for want of a GPU, not before."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    place = GpuPlace("gpu:0", ("tensorrt-rtx",), "8.9")
    candidate = built(place, models)[0]
    with pytest.raises((MissingError, EngineError), match=r"no NVIDIA driver|was built for"):
        candidate.spec.make().open()


def test_what_a_gpu_needs_depends_on_the_backends() -> None:
    assert GpuPlace("gpu:0", ("torch", "onnxruntime"), "8.9").needs_half
    assert GpuPlace("gpu:0", ("torch", "onnxruntime"), "8.9").placements == ()
    assert not GpuPlace("gpu:0", ("torch",), "8.9").needs_half
    assert not CpuPlace("cpu", CPU_BACKENDS).needs_half
    assert CpuPlace("cpu", CPU_BACKENDS).placements == CPU_BACKENDS


def test_random_weights_have_no_checkpoint_to_run() -> None:
    assert GpuPlace("gpu:0", ("torch",), "8.9").steps(Models(None, Path("model.onnx")), 1) == []


def test_the_cpu_is_found_with_the_backends_asked_for() -> None:
    (place,) = find_places(["cpu"], ["onnxruntime", "onnxruntime"])
    assert (place.target, place.backends) == ("cpu", ("onnxruntime",))
    with place.record() as record:
        assert record == {}


@pytest.mark.parametrize(
    ("targets", "backends", "error", "words"),
    [
        ([], [], InputError, "names none, or one twice"),
        (["cpu", "cpu"], [], InputError, "names none, or one twice"),
        (["gpu", "gpu:0"], [], InputError, "names none, or one twice"),
        (["cpus"], [], UnknownNameError, "no target is called 'cpus'"),
        (["cpu:0"], [], UnknownNameError, "no target is called 'cpu:0'"),
        (["cpu"], ["tensorflow"], UnknownNameError, "no backend is called 'tensorflow'"),
        (["cpu"], ["torch"], InputError, "has no engines to build"),
        (["cpu"], ["tensorrt-rtx"], InputError, "'tensorrt-rtx' does not run on target cpu"),
    ],
)
def test_refusals(targets: list[str], backends: list[str], error: type[Exception], words: str) -> None:
    if "tensorrt-rtx" in backends:
        pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    with pytest.raises(error, match=words):
        find_places(targets, backends)


def test_names_are_told_apart(models: Models) -> None:
    both = [*built(GpuPlace("gpu:0", ("torch",), "8.9"), models), *built(GpuPlace("gpu:1", ("torch",), "8.6"), models)]
    found = distinct(both)
    assert len({candidate.name for candidate in found}) == len(both)
    assert found[-1].name == f"torch {TORCH.variants[-1]} on gpu:1"
    assert all(candidate.name == candidate.spec.name for candidate in found)
