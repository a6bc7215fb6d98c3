"""PyTorch, eager, on the CPU: what a checkpoint costs before any deployment."""

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

    Checkpoints do not tell their image size, and the networks take any: `input` names that of the checkpoint's manifest where it
    has one, else ImageNet's, and `infer` takes all. Where the checkpoint holds a moving average and the weights themselves,
    `weights` says "ema" (as does None) or "plain"; where it holds several networks, `prefix` is what the names of one begin with.
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
        """Load the checkpoint. Sets `input` and `output`.

        Raises:
            CheckpointError: it cannot be read or fits no architecture.
            MissingError: PyTorch is not installed.
        """
        refuse_precision(BACKEND, self._options.precision)
        self._torch: Any = import_optional("torch")
        from emca_deploy.networks.checkpoints import load_checkpoint

        module, spec = load_checkpoint(self._path, weights=self._weights, prefix=self._prefix)
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
        """Return logits (N, classes) float32 of a batch (N, 3, H, W) float32.

        Raises:
            InputError: the batch's shape or dtype does not fit the model, or memory does not suffice.
            ModelError: PyTorch fails on it.
        """
        if self._module is None:
            raise RuntimeError("infer on a runner that is not open")
        check_batch(batch, self._any_size)
        try:
            with self._torch.inference_mode():
                return self._run(batch)
        except RuntimeError as exc:
            if "out of memory" in str(exc):
                raise InputError(f"{self._path}: memory does not suffice", "use a smaller --batch, or free memory") from exc
            raise ModelError(
                f"{self._path}: fails while running: {library_reason(exc)}", "try larger images, another batch or variant"
            ) from exc

    def _run(self, batch: Float32Array) -> Float32Array:
        images = self._torch.from_numpy(np.require(batch, np.float32, ["C", "A", "W"]))  # PyTorch shares no other memory
        logits: Float32Array = self._module(images).numpy()  # type: ignore[misc]
        return logits

    def close(self) -> None:
        """Free the module; calling it twice is fine."""
        self._module = None

    def describe(self) -> dict[str, Any]:
        """Return version, device, threads, and which weights of the checkpoint run ("ema" or "plain")."""
        torch = import_optional("torch")
        return {
            "runtime": BACKEND,
            "version": torch.__version__,
            "device": "cpu",
            "threads": self._options.threads,
            "weights": self._weights,
        }
