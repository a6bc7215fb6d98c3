"""A small network as a file and as the teacher of its fine-tuning."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from emca_deploy.calibration.finetuning.finetune import FineTuning
from zoo.networks import NETWORKS, to_onnx


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """Return a function that writes a network of the zoo, and returns its file and the network itself as the teacher."""
    import torch

    from zoo.torch_networks import Network

    folder = tmp_path_factory.mktemp("taught")

    def make(name: str, seed: int = 1, budget_s: float = 1e6) -> tuple[Path, FineTuning]:
        path = folder / f"{name}-{seed}.onnx"
        if not path.exists():
            onnx.save(to_onnx(NETWORKS[name], seed=seed), path)
        module = Network(NETWORKS[name], seed).eval()

        def teach(images: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return module(torch.from_numpy(images)).numpy()

        return path, FineTuning(Path("weights.pth"), "0" * 64, teach, budget_s)

    return make
