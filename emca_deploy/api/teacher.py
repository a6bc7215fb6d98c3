"""The teacher of fine-tuning: the network of a checkpoint in PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy._optional import import_optional
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import read_manifest, sha256_file
from emca_deploy.calibration.finetuning.finetune import FineTuning

__all__ = ["load_teacher"]


def load_teacher(checkpoint: Path, model: Path, budget_s: float) -> FineTuning:
    """Return the teacher for a model, which was exported from the checkpoint.

    Of a checkpoint with several networks or kinds of weights, the model's manifest chooses the one that was exported.

    Raises:
        CheckpointError: the file cannot be read, fits no architecture, or has a detector.
        MissingError: torch is not installed.
    """
    torch = import_optional("torch")
    from emca_deploy.networks.checkpoints import load_checkpoint

    module, spec = load_checkpoint(checkpoint, **_chosen(model))
    spec.check_classifier(checkpoint, "fine-tuning", "choose another --recover")

    def teach(images: Float32Array) -> Float32Array:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(images)).numpy(), np.float32)

    return FineTuning(checkpoint, sha256_file(checkpoint), teach, budget_s)


def _chosen(model: Path) -> dict[str, Any]:
    """Return the options of `load_checkpoint` that choose what a model was exported from."""
    manifest = read_manifest(model)
    if manifest is None:
        return {}
    source = manifest.details.get("checkpoint") or {}
    options = {"arch": manifest.arch, "prefix": source.get("prefix") or None}
    return options | ({"weights": source.get("weights")} if source.get("both_weights") else {})
