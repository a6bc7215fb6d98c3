"""A simulated CUDA runtime and TensorRT in host memory, for tests of what needs an NVIDIA GPU otherwise."""

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

OK = SimpleNamespace(name="cudaSuccess")


class Cuda:
    """CUDA's runtime in host memory: work is queued and done when the stream is waited for; its clock ticks for each piece."""

    cudaError_t = SimpleNamespace(cudaSuccess=OK)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="own thread")
    cudaStreamNonBlocking, cudaEventDefault, cudaEventRecordExternal, cudaEventRecordDefault = 1, 0, 1, 0
    minors = (9, 9)
    """Minor numbers of the GPUs' compute capabilities, 8.x."""

    def __init__(self, count: int = 1, broken: str = "") -> None:
        self.count, self.broken = count, broken
        self.alive: dict[Any, Any] = {}
        self.freed: list[Any] = []
        self.queue: list[Callable[[], object]] = []
        self.graph: list[Callable[[], object]] | None = None
        self.clock = 0
        self.flags: list[int] = []
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("cuda") or not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name == self.broken:
                return (SimpleNamespace(name="cudaErrorIllegalAddress"), *[None] * (name == "cudaMalloc"))
            found = value(*arguments)
            return (OK,) if found is None else (OK, found)

        return call

    def _new(self, kind: str, thing: Any = None) -> Any:
        handle = (kind, len(self.alive) + len(self.freed)) if thing is None else thing
        self.alive[handle] = kind
        return handle

    def _free(self, handle: Any) -> None:
        self.freed.append(self.alive.pop(handle))

    def _push(self, work: Callable[[], object]) -> None:
        (self.queue if self.graph is None else self.graph).append(work)

    def cudaGetDeviceCount(self) -> int:
        return self.count

    def cudaGetDeviceProperties(self, index: int) -> Any:
        return SimpleNamespace(
            name=f"GPU {index}".encode() + b"\0junk", major=8, minor=self.minors[index], totalGlobalMem=3 * 2**20
        )

    def cudaDriverGetVersion(self) -> int:
        return 12060

    cudaRuntimeGetVersion = cudaDriverGetVersion

    def cudaDeviceGetPCIBusId(self, length: int, index: int) -> bytes:
        assert length == 32
        return b"0000:0%d:00.0\0" % index

    def cudaGetErrorString(self, status: Any) -> bytes:
        return b"an illegal address"

    def cudaSetDevice(self, index: int) -> None:
        self.device = index

    def cudaStreamCreateWithFlags(self, flags: int) -> int:
        assert flags == 1
        return int(self._new("stream", 77))

    def _memory(self, kind: str, size: int) -> int:
        buffer = (ctypes.c_char * size)()
        ctypes.memset(buffer, 255, size)  # which are not numbers
        address = ctypes.addressof(buffer)
        self._new(kind, address)
        self.__dict__.setdefault("buffers", {})[address] = buffer
        return address

    def cudaMallocHost(self, size: int) -> int:
        return self._memory("host", size)

    def cudaMalloc(self, size: int) -> int:
        return self._memory("device", size)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: str, stream: int) -> None:
        assert (self.alive[stream], kind) == ("stream", "up" if to in self.alive and self.alive[to] == "device" else "down")
        self._push(lambda: ctypes.memmove(to, source, size))

    def cudaEventCreateWithFlags(self, flags: int) -> Any:
        return self._new("event")

    def cudaEventRecordWithFlags(self, event: Any, stream: int, flag: int) -> None:
        self.flags.append(flag)
        self._push(lambda: self.__dict__.setdefault("times", {}).__setitem__(event, self.clock))

    def cudaEventElapsedTime(self, start: Any, end: Any) -> float:
        return float(self.times[end] - self.times[start])

    def cudaStreamSynchronize(self, stream: int) -> None:
        for work in self.queue:
            self.clock += 1
            work()
        self.queue.clear()

    def cudaStreamBeginCapture(self, stream: int, mode: str) -> None:
        assert mode == "own thread"
        self.graph = []

    def cudaStreamEndCapture(self, stream: int) -> Any:
        work, self.graph = self.graph, None
        self.recorded = work
        return self._new("graph")

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        assert (self.alive[graph], flags) == ("graph", 0)
        return self._new("executable")

    def cudaGraphLaunch(self, graph: Any, stream: int) -> None:
        assert self.alive[graph] == "executable"
        self.queue += list(self.recorded or [])

    def __getattr__(self, name: str) -> Any:
        if name in (
            "cudaFree",
            "cudaFreeHost",
            "cudaEventDestroy",
            "cudaStreamDestroy",
            "cudaGraphDestroy",
            "cudaGraphExecDestroy",
        ):
            return lambda handle: (self._free(handle), (OK,))[1]
        raise AttributeError(name)


TENSORS: dict[str, tuple[tuple[int, ...], type]] = {"images": ((3, 4, 4), np.float32), "logits": ((2,), np.float32)}
"""Tensors of a classifier's engine, without the batch: it sums the first two channels of each image."""

DETECTOR_TENSORS: dict[str, tuple[tuple[int, ...], type]] = {
    "images": ((3, 4, 4), np.float32), "num_detections": ((), np.int32), "boxes": ((2, 4), np.float32),
    "scores": ((2,), np.float32), "labels": ((2,), np.int32),
}  # fmt: skip
"""Tensors of a detector's engine: the sums are its scores, and its other outputs are filled with 1, 2 and 3."""


class Engine:
    """An engine of a classifier or a detector."""

    def __init__(self, trt: "Trt", batch: int) -> None:
        self.trt, self.batch = trt, batch
        self.num_io_tensors = len(trt.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.trt.tensors)[index]

    def get_tensor_dtype(self, name: str) -> type:
        return self.trt.tensors[name][1]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.batch, *self.trt.tensors[name][0])

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "images" else "output"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("images", 0)
        return [(count, *self.trt.tensors["images"][0]) for count in self.trt.profile]

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(dynamic_shapes_kernel_specialization_strategy="lazy")

    def create_execution_context(self, config: Any = None) -> Any:
        self.trt.config = config
        return None if self.trt.refuses == "context" else Context(self.trt)


class Context:
    def __init__(self, trt: "Trt") -> None:
        self.trt = trt
        self.places: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.places[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.count = shape[0]
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        count = self.count

        def work() -> None:
            rt = self.trt.rt
            sizes, kind = self.trt.tensors["images"]
            given = np.frombuffer(rt.buffers[self.places["images"]], kind)[: count * 48].reshape(count, *sizes)
            last = sizes[-1] == 3
            images = (given.transpose(0, 3, 1, 2) if last else given).reshape(count, 3, 16).astype(np.float32)
            values = {"num_detections": 1, "boxes": 2, "labels": 3}
            for name, (shape, dtype) in list(self.trt.tensors.items())[1:]:
                found = np.frombuffer(rt.buffers[self.places[name]], dtype)[: count * int(np.prod(shape))]
                found[:] = values[name] if name in values else images[:, :2].sum(axis=2).ravel()

        self.trt.rt._push(work)
        return self.trt.refuses != "run"


class Trt:
    __version__ = "10.3.0"
    ILogger = type("ILogger", (), {"__init__": lambda self: None})
    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    profile = (1, 2, 4)
    config: Any = None
    nptype = staticmethod(np.dtype)
    tensors = TENSORS

    def __init__(self, rt: Cuda, batch: int = -1, refuses: str = "") -> None:
        self.rt, self.batch, self.refuses = rt, batch, refuses

    def Runtime(self, logger: Any) -> Any:
        self.runtime = SimpleNamespace(
            engine_host_code_allowed=False,
            deserialize_cuda_engine=lambda content: None if self.refuses == "engine" else Engine(self, self.batch),
        )
        return self.runtime
