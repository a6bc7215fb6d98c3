"""The CUDA layer: its errors, and the arguments of every call to cuda-bindings, also without a driver."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from refusals import refusing

from emca_deploy._machine import find_gpus
from emca_deploy.backends.tensorrt.cuda import Gpu, GpuFacts, capability_here, cuda_error, list_gpus, open_gpu
from emca_deploy.errors import EmcaError, EngineError, InputError, MissingError, WorkerError

no_gpu = pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")
FACTS = GpuFacts(0, "NVIDIA L4", "8.9", 23034.0, "12.4")


@pytest.fixture
def rt() -> Any:
    return pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")


@no_gpu
def test_no_driver(rt: Any) -> None:
    for call in (list_gpus, lambda: open_gpu(0), lambda: open_gpu(3)):
        with refusing(MissingError, "NVIDIA"):
            call()
    assert capability_here() is None


@no_gpu
@pytest.mark.parametrize(
    "call",
    [
        lambda gpu: gpu.pinned((2, 3)),
        lambda gpu: gpu.memory(1024),
        lambda gpu: gpu.upload(1024, np.zeros(4, np.float32)),
        lambda gpu: gpu.download(np.zeros(4, np.float32), 1024),
        lambda gpu: gpu.event(),
        lambda gpu: gpu.capture(lambda: None),
        lambda gpu: gpu.record(gpu._rt.cudaEvent_t(0)),
        lambda gpu: gpu.elapsed_ms(gpu._rt.cudaEvent_t(0), gpu._rt.cudaEvent_t(0)),
        lambda gpu: gpu.launch(gpu._rt.cudaGraphExec_t(0)),
        lambda gpu: gpu.wait(),
    ],
)
def test_calls_reach_the_driver_that_is_missing(rt: Any, call: Callable[[Gpu], object]) -> None:
    gpu = Gpu.__new__(Gpu)  # the constructor already calls the driver
    gpu._rt, gpu.facts, gpu._frees, gpu._capturing = rt, FACTS, [], False
    gpu.stream = rt.cudaStream_t(0)
    with refusing(MissingError, "NVIDIA"):
        call(gpu)
    gpu.close()


@no_gpu
def test_the_maker_asks_the_driver_first(rt: Any) -> None:
    with refusing(MissingError, "NVIDIA"):
        Gpu(rt, FACTS)


def test_everything_that_is_called_exists(rt: Any) -> None:
    names = (
        "cudaSetDevice", "cudaStreamCreateWithFlags", "cudaStreamNonBlocking", "cudaStreamDestroy", "cudaFreeHost", "cudaFree",
        "cudaEventDefault", "cudaEventDestroy", "cudaEventRecordWithFlags", "cudaEventRecordExternal", "cudaEventRecordDefault",
        "cudaEventElapsedTime", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphDestroy", "cudaGraphExecDestroy",
        "cudaGraphLaunch", "cudaGetErrorString", "cudaDriverGetVersion", "cudaRuntimeGetVersion",
    )  # fmt: skip
    assert [name for name in names if not hasattr(rt, name)] == []
    assert rt.cudaMemcpyKind.cudaMemcpyHostToDevice != rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
    assert rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal is not None


@pytest.mark.parametrize(
    ("name", "driver", "kind", "problem", "remedy"),
    [
        ("cudaErrorInsufficientDriver", 0, MissingError, "no NVIDIA driver", "nvidia-smi"),
        ("cudaErrorInsufficientDriver", 12060, MissingError, "CUDA 12.6", "'cuda-bindings<13'"),
        ("cudaErrorNoDevice", 13000, MissingError, "sees no GPU", "--gpus all"),
        ("cudaErrorMemoryAllocation", 13000, InputError, "out of memory", "smaller --batch"),
        ("cudaErrorNoKernelImageForDevice", 13000, EngineError, "nothing in the engine runs on this GPU", "build it again"),
        ("cudaErrorUnsupportedPtxVersion", 13000, MissingError, "too old", "update the driver"),
        ("cudaErrorDevicesUnavailable", 13000, MissingError, "another process", "nvidia-smi"),
        ("cudaErrorIllegalAddress", 13000, WorkerError, "CUDA failed: cudaErrorIllegalAddress in cudaFree: words", "nvidia-smi"),
    ],
)  # fmt: skip
def test_errors(name: str, driver: int, kind: type[EmcaError], problem: str, remedy: str) -> None:
    error = cuda_error(name, "words", driver, 13050, "cudaFree")
    assert type(error) is kind
    assert problem in error.problem
    assert remedy in error.remedy


def test_every_known_error_is_one_of_cudas(rt: Any) -> None:
    from emca_deploy.backends.tensorrt import cuda

    constants = [text for text in cuda.cuda_error.__code__.co_consts if isinstance(text, str) and text.startswith("cudaError")]
    nested = [name for item in cuda.cuda_error.__code__.co_consts if isinstance(item, tuple) for name in item]
    names = {name for name in (*constants, *nested) if isinstance(name, str) and name.startswith("cudaError")}
    assert len(names) > 7
    assert names <= set(rt.cudaError_t.__members__)
