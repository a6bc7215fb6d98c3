"""The CUDA calls that running an engine needs, through cuda-bindings; status codes become this package's errors."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy._machine import find_gpus
from emca_deploy._optional import import_optional, installed_version
from emca_deploy.errors import EmcaError, EngineError, InputError, MissingError, WorkerError
from emca_deploy.machines.nvidia import rtx_refusal

__all__ = [
    "Gpu",
    "GpuFacts",
    "capability_here",
    "cuda_error",
    "list_gpus",
    "open_gpu",
    "rtx_trouble",
    "tensorrt_trouble",
]

MIB = 2**20
BUS_ID_LENGTH = 32
NO_DRIVER = "use a machine with an NVIDIA GPU and its driver (nvidia-smi must list it), or --target cpu"


@dataclass(frozen=True)
class GpuFacts:
    """A GPU and its driver.

    Attributes:
        capability: Compute capability, "8.9".
        memory_mib: Memory of the GPU; on a Jetson, shared with the processor.
        driver_cuda: Newest CUDA version that the driver supports, "12.6".
        bus_id: PCI bus id, "0000:01:00.0", which NVML uses.
    """

    index: int
    name: str
    capability: str
    memory_mib: float
    driver_cuda: str
    bus_id: str = ""


def cuda_error(name: str, text: str, driver: int, runtime: int, doing: str) -> EmcaError:
    """Return this package's error for a CUDA status, from its name ("cudaErrorNoDevice") and its description.

    `driver` is the newest CUDA version that the driver supports, in CUDA's numbering (12060), 0 without a driver; `runtime` is
    that of cuda-bindings.
    """
    if name == "cudaErrorInsufficientDriver" and driver > 0:
        major = driver // 1000
        return MissingError(
            f"the NVIDIA driver supports CUDA {_version(driver)}, the installed cuda-bindings needs {_version(runtime)}",
            f"update the driver, or pip install 'cuda-bindings<{major + 1}'",
        )
    if name == "cudaErrorInsufficientDriver":
        return MissingError("no NVIDIA driver is installed here", NO_DRIVER)
    if name == "cudaErrorNoDevice":
        return MissingError("the NVIDIA driver sees no GPU here", f"{NO_DRIVER}; in a container, start it with --gpus all")
    known: dict[str, tuple[type[EmcaError], str, str]] = {
        "cudaErrorMemoryAllocation": (InputError, "the GPU is out of memory", "use a smaller --batch, or free the GPU"),
        "cudaErrorNoKernelImageForDevice": (EngineError, "nothing in the engine runs on this GPU", "build it again here"),
        "cudaErrorUnsupportedPtxVersion": (MissingError, "the driver is too old for the engine's code", "update the driver"),
        "cudaErrorSystemDriverMismatch": (
            MissingError,
            "the driver's libraries are of another version",
            "reboot, or reinstall it",
        ),
        "cudaErrorCompatNotSupportedOnDevice": (MissingError, "the driver is too old for this CUDA", "update the driver"),
        "cudaErrorDevicesUnavailable": (MissingError, "another process holds the GPU", "end it: nvidia-smi lists it"),
        "cudaErrorNotPermitted": (MissingError, "the GPU may not be used", "check the permissions of /dev/nvidia*"),
    }
    kind, problem, remedy = known.get(name, (WorkerError, "CUDA failed", "check the GPU with nvidia-smi, and run it again"))
    return kind(f"{problem}: {name} in {doing}: {text}", remedy)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _check(rt: Any, doing: str, answer: tuple[Any, ...]) -> Any:
    """Return a call's results without its status: None, a value, or a tuple; raise EmcaError where it failed."""
    status, *values = answer
    if status != rt.cudaError_t.cudaSuccess:
        _, text = rt.cudaGetErrorString(status)
        driver, runtime = rt.cudaDriverGetVersion()[1] or 0, rt.cudaRuntimeGetVersion()[1] or 0
        raise cuda_error(status.name, text.decode(errors="replace"), int(driver), int(runtime), doing)
    return values[0] if len(values) == 1 else tuple(values) or None


def list_gpus() -> tuple[GpuFacts, ...]:
    """Return all GPUs that CUDA sees; raise MissingError without cuda-bindings, a fitting driver or a GPU."""
    rt = import_optional("cuda.bindings.runtime")
    return tuple(_facts(rt, index) for index in range(_check(rt, "cudaGetDeviceCount", rt.cudaGetDeviceCount())))


def _facts(rt: Any, index: int) -> GpuFacts:
    properties = _check(rt, "cudaGetDeviceProperties", rt.cudaGetDeviceProperties(index))
    driver = _check(rt, "cudaDriverGetVersion", rt.cudaDriverGetVersion())
    bus_id = _check(rt, "cudaDeviceGetPCIBusId", rt.cudaDeviceGetPCIBusId(BUS_ID_LENGTH, index))
    name = _text(properties.name)
    capability = f"{properties.major}.{properties.minor}"
    return GpuFacts(index, name, capability, properties.totalGlobalMem / MIB, _version(int(driver)), _text(bus_id))


def _text(value: bytes | str) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.partition("\0")[0].strip()


def capability_here(index: int = 0) -> str | None:
    """Return a GPU's compute capability ("8.9"), or None where CUDA cannot be used."""
    try:
        return list_gpus()[index].capability
    except (MissingError, IndexError):
        return None


def tensorrt_trouble(backend: str = "tensorrt") -> tuple[str, str] | None:
    """Return the reason why engines cannot run on this machine and the remedy, or None; only files are checked."""
    if not find_gpus():
        reason = "builds engines, but cannot run them: this machine has no NVIDIA GPU with a driver"
        return reason, f"emca-deploy build MODEL.onnx --backend {backend}, and run the engine on a machine with a GPU"
    if installed_version("cuda") is None:
        return "running its engines needs cuda-bindings, which is not installed", "pip install 'emca-deploy[gpu]'"
    return None


@cache
def rtx_trouble() -> tuple[str, str] | None:
    """Return the reason and remedy for TensorRT-RTX, which also has no kernels for some GPUs."""
    if (trouble := tensorrt_trouble("tensorrt-rtx")) is not None:
        return trouble
    refusal = rtx_refusal(capability_here())
    return None if refusal is None else (refusal, "use TensorRT there, or onnxruntime-gpu; engines for other GPUs can be built")


def open_gpu(index: int = 0) -> "Gpu":
    """Return a GPU with a new stream, made current in this thread; raise MissingError where it cannot be used."""
    gpus = list_gpus()
    if index >= len(gpus):
        have = "has one, gpu:0" if len(gpus) == 1 else f"has {len(gpus)}, counted from 0"
        raise MissingError(f"there is no GPU {index} here", f"this machine {have}; CUDA_VISIBLE_DEVICES can hide some")
    return Gpu(import_optional("cuda.bindings.runtime"), gpus[index])


class Gpu:
    """One stream of a GPU (`stream` is its handle) with its memory, events and graphs; `close` frees them all."""

    def __init__(self, rt: Any, facts: GpuFacts) -> None:
        self._rt = rt
        self.facts = facts
        self._frees: list[Callable[[], object]] = []
        self._capturing = False
        self._call("cudaSetDevice", facts.index)
        self.stream: Any = self._call("cudaStreamCreateWithFlags", rt.cudaStreamNonBlocking)
        self._frees.append(lambda: rt.cudaStreamDestroy(self.stream))

    def _call(self, function: str, *arguments: Any) -> Any:
        return _check(self._rt, function, getattr(self._rt, function)(*arguments))

    def pinned(self, shape: tuple[int, ...], dtype: str = "float32") -> npt.NDArray[Any]:
        """Return pinned host memory as an array of a shape, valid until `close`; raise InputError if memory is short."""
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._call("cudaMallocHost", size_bytes)
        self._frees.append(lambda: self._rt.cudaFreeHost(address))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(int(address))).view(dtype).reshape(shape)

    def memory(self, count_bytes: int) -> int:
        """Return the address of new memory on the GPU; raise InputError if memory is short."""
        address = self._call("cudaMalloc", count_bytes)
        self._frees.append(lambda: self._rt.cudaFree(address))
        return int(address)

    def upload(self, address: int, source: npt.NDArray[Any]) -> None:
        """Queue a copy of a pinned array to the GPU."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, source.ctypes.data, source.nbytes, kind, self.stream)

    def download(self, target: npt.NDArray[Any], address: int) -> None:
        """Queue a copy from the GPU to a pinned array."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.ctypes.data, address, target.nbytes, kind, self.stream)

    def event(self) -> Any:
        """Return an event that records the time."""
        event = self._call("cudaEventCreateWithFlags", self._rt.cudaEventDefault)
        self._frees.append(lambda: self._rt.cudaEventDestroy(event))
        return event

    def record(self, event: Any) -> None:
        """Queue an event; within a captured graph it records the time of each launch."""
        # An event before a graph's launch would count the time that Python takes until the launch as the GPU's.
        flag = self._rt.cudaEventRecordExternal if self._capturing else self._rt.cudaEventRecordDefault
        self._call("cudaEventRecordWithFlags", event, self.stream, flag)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Return the milliseconds between two events that have happened."""
        return float(self._call("cudaEventElapsedTime", start, end))

    def wait(self) -> None:
        """Wait until everything queued is done."""
        self._call("cudaStreamSynchronize", self.stream)

    def capture(self, work: Callable[[], None]) -> Any:
        """Return a graph of the calls that `work` queues, without running them; the stream stays usable after an error."""
        self._call("cudaStreamBeginCapture", self.stream, self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        self._capturing = True
        try:
            work()
        except BaseException:
            self._rt.cudaStreamEndCapture(self.stream)
            raise
        finally:
            self._capturing = False
        graph = self._call("cudaStreamEndCapture", self.stream)
        try:
            executable = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._rt.cudaGraphDestroy(graph)
        self._frees.append(lambda: self._rt.cudaGraphExecDestroy(executable))
        return executable

    def launch(self, graph: Any) -> None:
        """Queue a captured graph."""
        self._call("cudaGraphLaunch", graph, self.stream)

    def close(self) -> None:
        """Free everything, the newest first; calling it twice is fine."""
        while self._frees:
            self._frees.pop()()
