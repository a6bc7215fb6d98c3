"""The execution of a deserialized engine: buffers, one stream, and a CUDA graph if the shape is fixed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.base import named_shape
from emca_deploy.backends.tensorrt.cuda import Gpu
from emca_deploy.backends.tensorrt.log import BuildLog
from emca_deploy.errors import EmcaError, EngineError, InputError, MissingError, ModelError

__all__ = ["Execution", "engine_io", "not_deserialized"]


def not_deserialized(path: str, log: BuildLog) -> EmcaError:
    """Return the error for an engine with a valid manifest that TensorRT does not load."""
    reason = log.reason()
    lowered = reason.lower()
    if "memory" in lowered:
        return InputError(f"{path}: the GPU has too little memory for it: {reason}", "free the GPU, or use a smaller --batch")
    if "plugin" in lowered:
        return MissingError(f"{path}: needs a missing plugin: {reason}", "load the plugin's library, or build without it")
    if "cudaerror" in lowered.replace(" ", ""):
        return MissingError(f"{path}: cannot be loaded onto the GPU: {reason}", "check the driver with nvidia-smi")
    return EngineError(f"{path}: TensorRT does not load it: {reason}", "build it again with this version, for this GPU")


def engine_io(trt: Any, engine: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return an engine's inputs and outputs; the first dimension is "batch" where it is dynamic."""
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
        shape = named_shape(map(int, engine.get_tensor_shape(name)))
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(TensorSpec(name, dtype, shape))
    return inputs, outputs


class Execution:
    """One execution context with its buffers on a GPU, which its owner closes later.

    The input and the outputs, which are all those of the engine, have numbers for all sizes but the batch. `largest` is the
    largest number of images of a call; `fixed` the only one, whose calls are then captured as a CUDA graph, or None.

    Attributes:
        device_ms: Time of the last call in ms, between the events before and after the engine's own work, without copies.
    """

    def __init__(
        self, gpu: Gpu, context: Any, spec: TensorSpec, outputs: Sequence[TensorSpec], largest: int, fixed: int | None
    ) -> None:
        self._gpu, self._context, self._input = gpu, context, spec
        self._images = gpu.pinned((largest, *_sizes(spec)), spec.dtype)
        self._answers = {output.name: gpu.pinned((largest, *_sizes(output)), output.dtype) for output in outputs}
        arrays = {spec.name: self._images, **self._answers}
        self._addresses = {name: gpu.memory(array.nbytes) for name, array in arrays.items()}
        self._start, self._end = gpu.event(), gpu.event()
        self._shape: tuple[int, ...] | None = None
        self._graph: Any = None
        self.device_ms: float | None = None
        for name, address in self._addresses.items():
            if not context.set_tensor_address(name, address):
                raise ModelError(f"tensor '{name}': TensorRT refuses its address", "build the engine again")
        if fixed is not None:
            self._prepare(fixed)

    @property
    def captured(self) -> bool:
        """Whether calls replay a CUDA graph."""
        return self._graph is not None

    def run(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Return all outputs by name, in new arrays, of a batch in the type and layout of the input, within the profile.

        Raises:
            ModelError: TensorRT refuses the shape or the call.
            EmcaError: CUDA fails.
        """
        count = len(batch)
        self._set_shape(count)
        np.copyto(self._images[:count], batch)
        if self._graph is not None:
            self._gpu.launch(self._graph)
        else:
            self._queue(count)
        self._gpu.wait()
        self.device_ms = self._gpu.elapsed_ms(self._start, self._end)
        # Pinned memory is invalid after `close`.
        return {name: answer[:count].copy() for name, answer in self._answers.items()}

    def _queue(self, count: int) -> None:
        """Queue a whole call: the copy to the GPU, the engine between two events, the copy back."""
        self._gpu.upload(self._addresses[self._input.name], self._images[:count])
        self._gpu.record(self._start)
        if not self._context.execute_async_v3(int(self._gpu.stream)):
            raise ModelError("TensorRT refuses to run the engine", "build it again for this GPU and version")
        self._gpu.record(self._end)
        for name, answer in self._answers.items():
            self._gpu.download(answer[:count], self._addresses[name])

    def _set_shape(self, count: int) -> None:
        shape = (count, *_sizes(self._input))
        if shape == self._shape:
            return
        if not self._context.set_input_shape(self._input.name, shape):
            raise ModelError(f"TensorRT refuses a batch of {count}", "use a batch that the engine's profile has")
        self._shape = shape

    def _prepare(self, count: int) -> None:
        """Run once, since TensorRT allocates some memory in the first run, and capture the second run."""
        self._images[:] = 0
        self._set_shape(count)
        self._queue(count)
        self._gpu.wait()
        capturable = getattr(self._context, "is_stream_capturable", None)  # only TensorRT-RTX has it
        if capturable is not None and not capturable(int(self._gpu.stream)):
            return
        try:
            self._graph = self._gpu.capture(lambda: self._queue(count))
        except EmcaError:  # an engine with loops or a DLA part, which runs without a graph
            self._graph = None


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(int(size) for size in spec.shape[1:])
