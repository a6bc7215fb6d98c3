"""PyTorch, eager, on the CPU: the speed of a checkpoint before any deployment."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emca_deploy._optional import import_optional
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import Preprocessing, TensorSpec, read_manifest
from emca_deploy.backends.base import Runner, RunOptions, check_batch, refuse_precision
from emca_deploy.errors import InputError, ModelError
from emca_deploy.onnx_file.refusal import library_reason

if TYPE_CHECKING:
    from torch import nn

    from emca_deploy.networks.checkpoints import Weights

__all__ = ["TorchRunner"]

BACKEND = "torch"


class TorchRunner(Runner):
    """Runs a checkpoint (.pth, .pt, .safetensors) eagerly.

    Checkpoints do not record their image size, and the networks take any: `input` has the size of the checkpoint's manifest, else
    ImageNet's, and `infer` takes all sizes. Of a checkpoint with a moving average and plain weights, `weights` chooses "ema" (the
    default) or "plain"; of one with several networks, `prefix` chooses the network whose names begin with it.
    """

    def __init__(
        self, artifact: str, options: RunOptions, *, weights: "Weights | None" = None, prefix: str | None = None
    ) -> None:
        self._path = Path(artifact)
        self._options = options
        self._weights = weights
        self._prefix = prefix
        self._module: nn.Module | None = None

    def open(self) -> None:
        """Load the checkpoint, and set `input` and `output`.

        Raises:
            CheckpointError: it cannot be read or fits no architecture.
            MissingError: PyTorch is not installed.
        """
        refuse_precision(BACKEND, self._options.precision)
        self._torch: Any = import_optional("torch")
        from emca_deploy.networks.checkpoints import load_checkpoint

        module, spec = load_checkpoint(self._path, weights=self._weights, prefix=self._prefix)
        spec.check_classifier(self._path, "the torch backend", "export it, and name the .onnx file")
        self._weights = spec.source.weights if spec.source else None
        self._torch.set_num_threads(self._options.threads)
        batch = self._options.batch or "batch"
        self._any_size = TensorSpec("images", "float32", (batch, 3, "height", "width"))
        manifest = read_manifest(self._path, verify=False)
        used = (manifest and manifest.preprocessing) or Preprocessing()
        self.input = TensorSpec("images", "float32", (batch, 3, used.height, used.width))
        self.output = TensorSpec("logits", "float32", (batch, spec.num_classes))
        self._module = module.eval()

    def infer(self, batch: Float32Array) -> Float32Array:
        """Return logits (N, classes) float32 of a batch (N, 3, H, W) float32."""
        if self._module is None:
            raise RuntimeError("infer on a runner that is not open")
        check_batch(batch, self._any_size)
        try:
            with self._torch.inference_mode():
                return self._run(batch)
        except RuntimeError as exc:
            if "out of memory" in str(exc):
                raise InputError(f"{self._path}: runs out of memory", "use a smaller --batch, or free memory") from exc
            raise ModelError(
                f"{self._path}: fails while running: {library_reason(exc)}", "try larger images, another batch or variant"
            ) from exc

    def _run(self, batch: Float32Array) -> Float32Array:
        images = self._torch.from_numpy(np.require(batch, np.float32, ["C", "A", "W"]))  # the memory that PyTorch can share
        logits: Float32Array = self._module(images).numpy()  # type: ignore[misc]
        return logits

    def close(self) -> None:
        """Free the module."""
        self._module = None

    def describe(self) -> dict[str, Any]:
        """Return version, device, threads, and the checkpoint's weights that run ("ema" or "plain")."""
        torch = import_optional("torch")
        return {
            "runtime": BACKEND,
            "version": torch.__version__,
            "device": "cpu",
            "threads": self._options.threads,
            "weights": self._weights,
        }
