"""The order of an execution's GPU calls, on a simulated GPU in host memory: unlike TensorRT and CUDA, it needs no real one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.tensorrt.runner_execution import Execution, engine_io
from emca_deploy.errors import ModelError, WorkerError

IMAGES, LOGITS = (TensorSpec("images", "float32", ("batch", 3, 4, 4)), TensorSpec("logits", "float32", ("batch", 2)))


class HostGpu:
    """Queues operations and runs them at synchronization, like a stream; its clock ticks once per operation."""

    stream = 7

    def __init__(self, capture_fails: bool = False) -> None:
        self.capture_fails = capture_fails
        self.memories: dict[int, np.ndarray] = {}
        self.queue: list[Callable[[], object]] = []
        self.done: list[str] = []
        self.clock = 0
        self.times: dict[int, int] = {}
        self.captured: list[Callable[[], object]] | None = None

    def pinned(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        return np.full(shape, np.nan, dtype)

    def memory(self, count_bytes: int) -> int:
        address = 1000 * (len(self.memories) + 1)
        self.memories[address] = np.full(count_bytes // 4, np.nan, np.float32)
        return address

    def push(self, name: str, work: Callable[[], object]) -> None:
        def step() -> None:
            self.clock += 1
            self.done.append(name)
            work()

        (self.queue if self.captured is None else self.captured).append(step)

    def upload(self, address: int, source: np.ndarray) -> None:
        self.push("upload", lambda: self.memories[address].__setitem__(slice(source.size), source.ravel()))

    def download(self, target: np.ndarray, address: int) -> None:
        self.push("download", lambda: target.__setitem__(..., self.memories[address][: target.size].reshape(target.shape)))

    def event(self) -> int:
        self.times[len(self.times)] = -1
        return len(self.times) - 1

    def record(self, event: int) -> None:
        self.push("record", lambda: self.times.__setitem__(event, self.clock))

    def elapsed_ms(self, start: int, end: int) -> float:
        return float(self.times[end] - self.times[start])

    def wait(self) -> None:
        for work in self.queue:
            work()
        self.queue.clear()

    def capture(self, work: Callable[[], None]) -> list[Callable[[], object]]:
        if self.capture_fails:
            raise WorkerError("CUDA failed: cudaErrorStreamCaptureUnsupported", "run it again")
        self.captured = []
        work()
        graph, self.captured = self.captured, None
        return graph

    def launch(self, graph: list[Callable[[], object]]) -> None:
        self.queue += [lambda: self.done.append("graph"), *graph]


class Context:
    """An execution context of a network that sums channels 0 and 1 of each image."""

    def __init__(self, gpu: HostGpu, largest: int = 4, capturable: bool | None = None) -> None:
        self.gpu, self.largest = gpu, largest
        self.addresses: dict[str, int] = {}
        self.shapes: list[tuple[int, ...]] = []
        if capturable is not None:
            self.is_stream_capturable = lambda stream: capturable

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in ("images", "logits")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes.append(shape)
        return shape[0] <= self.largest

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == HostGpu.stream
        count = self.shapes[-1][0]

        def work() -> None:
            images = self.gpu.memories[self.addresses["images"]][: count * 48].reshape(count, 3, 16)
            self.gpu.memories[self.addresses["logits"]][: count * 2] = images[:, :2].sum(axis=2).ravel()

        self.gpu.push("engine", work)
        return True


def images_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 4, 4)).astype(np.float32)


def expected(images: np.ndarray) -> np.ndarray:
    return images[:, :2].sum(axis=(2, 3))


def test_a_dynamic_batch() -> None:
    gpu: Any = HostGpu()
    context = Context(gpu)
    execution = Execution(gpu, context, IMAGES, [LOGITS], 4, None)
    assert not execution.captured
    assert execution.device_ms is None
    for count in (2, 2, 4, 1):
        images = images_of(count, seed=count)
        assert np.allclose(execution.run(images)["logits"], expected(images), atol=1e-5)
    assert gpu.done[:5] == ["upload", "record", "engine", "record", "download"]
    assert [shape[0] for shape in context.shapes] == [2, 4, 1]  # only when it changes
    assert execution.device_ms == 2  # the engine and the second event


@pytest.mark.parametrize("capturable", [None, True])
def test_a_fixed_batch_is_one_graph(capturable: bool | None) -> None:
    gpu: Any = HostGpu()
    execution = Execution(gpu, Context(gpu, capturable=capturable), IMAGES, [LOGITS], 3, 3)
    assert execution.captured
    gpu.done.clear()
    for seed in range(2):
        images = images_of(3, seed)
        assert np.allclose(execution.run(images)["logits"], expected(images), atol=1e-5)
        assert gpu.done == ["graph", "upload", "record", "engine", "record", "download"]
        gpu.done.clear()
    assert execution.device_ms == 2


@pytest.mark.parametrize(("fails", "capturable"), [(True, None), (False, False)])
def test_what_cannot_be_captured_runs_without_a_graph(fails: bool, capturable: bool | None) -> None:
    gpu: Any = HostGpu(capture_fails=fails)
    execution = Execution(gpu, Context(gpu, capturable=capturable), IMAGES, [LOGITS], 2, 2)
    assert not execution.captured
    images = images_of(2)
    assert np.allclose(execution.run(images)["logits"], expected(images), atol=1e-5)


def test_answers_outlive_the_next_call() -> None:
    gpu: Any = HostGpu()
    execution = Execution(gpu, Context(gpu), IMAGES, [LOGITS], 2, None)
    first = execution.run(images_of(2, 1))["logits"]
    kept = first.copy()
    execution.run(images_of(2, 2))
    assert np.array_equal(first, kept)


def test_a_shape_that_tensorrt_refuses() -> None:
    gpu: Any = HostGpu()
    with refusing(ModelError, 3):
        Execution(gpu, Context(gpu, largest=2), IMAGES, [LOGITS], 4, None).run(images_of(3))


def test_a_tensor_without_a_place() -> None:
    gpu: Any = HostGpu()
    with pytest.raises(ModelError, match="tensor 'pixels'"):
        Execution(gpu, Context(gpu), TensorSpec("pixels", "float32", ("batch", 3, 4, 4)), [LOGITS], 4, None)


def test_inputs_and_outputs_are_read_with_tensorrts_own_types(rtx: Any) -> None:
    class Engine:
        num_io_tensors = 2

        def get_tensor_name(self, index: int) -> str:
            return ("images", "logits")[index]

        def get_tensor_dtype(self, name: str) -> Any:
            return rtx.float32

        def get_tensor_shape(self, name: str) -> Any:
            return rtx.Dims((-1, 3, 4, 4) if name == "images" else (-1, 2))

        def get_tensor_mode(self, name: str) -> Any:
            return rtx.TensorIOMode.INPUT if name == "images" else rtx.TensorIOMode.OUTPUT

    assert engine_io(rtx, Engine()) == ([IMAGES], [LOGITS])


def test_what_is_called_of_tensorrt_exists(rtx: Any) -> None:
    wanted = {
        rtx.Runtime: ("deserialize_cuda_engine", "engine_host_code_allowed"),
        rtx.ICudaEngine: (
            "num_io_tensors", "get_tensor_name", "get_tensor_dtype", "get_tensor_shape", "get_tensor_mode",
            "get_tensor_profile_shape", "create_execution_context", "create_runtime_config",
        ),
        rtx.IExecutionContext: ("set_tensor_address", "set_input_shape", "execute_async_v3", "is_stream_capturable"),
        rtx.IRuntimeConfig: ("dynamic_shapes_kernel_specialization_strategy",),
        rtx.DynamicShapesKernelSpecializationStrategy: ("EAGER",),
    }  # fmt: skip
    assert [name for kind, names in wanted.items() for name in names if not hasattr(kind, name)] == []
