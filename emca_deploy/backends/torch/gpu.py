"""PyTorch on an NVIDIA GPU, as a user would run it without an engine: eager, compiled, fp16, channels last."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from emca_deploy._machine import default_threads
from emca_deploy.arrays import Float32Array
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.torch import BACKEND
from emca_deploy.backends.torch.cpu import TorchRunner
from emca_deploy.errors import InputError, MissingError
from emca_deploy.onnx_file.refusal import library_reason
from emca_deploy.preprocessing import Size, sides

if TYPE_CHECKING:
    from emca_deploy.networks.checkpoints import Weights

__all__ = ["TorchGpuRunner", "open_at_size"]

COMPILE_MODE = "reduce-overhead"  # uses CUDA graphs, as engines do; without them batch 1 waits for Python


class TorchGpuRunner(TorchRunner):
    """Runs a checkpoint on a GPU, given by its index, or on a device by PyTorch's name ("cpu").

    The variant is "eager" or some of "compiled", "fp16" and "channels-last", separated by spaces. `input` has the image size
    given, else the manifest's, else ImageNet's; `infer` takes all sizes.

    Attributes:
        device_ms: Time of the last call in ms between CUDA events around the network, without copies and conversion of the
            images; None on a device without events.
    """

    def __init__(
        self,
        artifact: str,
        options: RunOptions,
        device: int | str = 0,
        variant: str = "eager",
        image_size: Size | None = None,
        *,
        weights: "Weights | None" = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(artifact, options, weights=weights, prefix=prefix)
        self._image_size = image_size
        self._words = set(variant.split()) - {"eager"}
        if unknown := self._words - {"compiled", "fp16", "channels-last"}:
            raise InputError(f"torch has no variant '{sorted(unknown)[0]}'", f"variants: {', '.join(BACKEND.variants)}")
        self._variant = variant
        self._place = f"cuda:{device}" if isinstance(device, int) else device
        self._staging: Any = None
        self._events: Any = None
        self.device_ms: float | None = None

    def open(self) -> None:
        """Load the checkpoint, put it on the device, and set `input` and `output`.

        Raises:
            CheckpointError: it cannot be read or fits no architecture.
            MissingError: PyTorch is not installed, has no CUDA, or finds no such GPU.
        """
        super().open()
        torch = self._torch
        module: Any = self._module
        self._on_gpu = self._place.startswith("cuda")
        if self._on_gpu and not torch.cuda.is_available():
            build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
            raise MissingError(f"PyTorch {torch.__version__} finds no GPU: it {build}", "install PyTorch for this driver's CUDA")
        self._dtype = torch.float16 if "fp16" in self._words else torch.float32
        last = "channels-last" in self._words
        self._layout = torch.channels_last if last else torch.contiguous_format
        try:
            module = module.to(device=self._place, dtype=self._dtype, memory_format=self._layout)
        except RuntimeError as exc:
            raise MissingError(
                f"PyTorch cannot use {self._place}: {library_reason(exc)}", "check the GPU with nvidia-smi"
            ) from exc
        if "compiled" in self._words:
            module = torch.compile(module, mode=COMPILE_MODE)
        if self._on_gpu:
            self._events = tuple(torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._module = module
        if self._image_size is not None:
            self.input = replace(self.input, shape=(*self.input.shape[:2], *sides(self._image_size)))
        if self._options.batch is not None:
            self.input = replace(self.input, shape=(self._options.batch, *self.input.shape[1:]))

    def _run(self, batch: Float32Array) -> Float32Array:
        module: Any = self._module
        images = self._stage(batch).to(self._place, non_blocking=True)
        images = images.to(dtype=self._dtype, memory_format=self._layout)
        if self._events:
            self._events[0].record()
        logits = module(images)
        if self._events:
            self._events[1].record()
        answer: Float32Array = logits.float().cpu().numpy().copy()  # a compiled network reuses its output
        if self._events:
            self._events[1].synchronize()
            self.device_ms = float(self._events[0].elapsed_time(self._events[1]))
        return answer

    def _stage(self, batch: Float32Array) -> Any:
        """Return the images as a tensor in host memory, pinned if there is a GPU."""
        if self._staging is None or tuple(self._staging.shape) != batch.shape:
            self._staging = self._torch.empty(batch.shape, dtype=self._torch.float32, pin_memory=self._on_gpu)
        self._staging.numpy()[...] = batch
        return self._staging

    def close(self) -> None:
        """Free the module and the staging memory."""
        super().close()
        self._staging = self._events = None

    def describe(self) -> dict[str, Any]:
        """Return version, device, variant and what the device times contain."""
        return {
            **super().describe(),
            "device": self._place,
            "variant": self._variant,
            "compile_mode": COMPILE_MODE if "compiled" in self._words else None,
            "device_time": "CUDA events around the network, copies and conversion of the images excluded",
        }


def open_at_size(
    artifact: str,
    device: int | str,
    batch: int | None,
    variant: str,
    image_size: Size,
    *,
    weights: "Weights | None" = None,
    prefix: str | None = None,
) -> TorchGpuRunner:
    """Return the runner of a checkpoint at one image size, not opened yet; raise InputError for an unknown variant."""
    return TorchGpuRunner(
        artifact, RunOptions(default_threads(), batch=batch), device, variant, image_size, weights=weights, prefix=prefix
    )
