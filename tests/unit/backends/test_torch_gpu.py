"""PyTorch's GPU variants, run on the processor, where the network's arithmetic is the same."""

from pathlib import Path

import numpy as np
import pytest
from refusals import refusing

from emca_deploy._machine import find_gpus
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.registry import open_gpu_runner
from emca_deploy.errors import InputError, MissingError

CLASSES = 7


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from emca_deploy.networks.registry import create_model

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("torch") / "net.pth"
    torch.save(create_model("emca_eca_resnet18", CLASSES).state_dict(), path)
    return path


def run(checkpoint: Path, variant: str, images: np.ndarray) -> np.ndarray:
    from emca_deploy.backends.torch.gpu import TorchGpuRunner

    runner = TorchGpuRunner(str(checkpoint), RunOptions(), "cpu", variant)
    with runner:
        first = runner.infer(images)
        kept = first.copy()
        assert runner.infer(-images).shape == first.shape
        assert np.array_equal(first, kept)  # the caller owns the result
        assert runner.device_ms is None  # no CUDA events on a processor
        assert runner.describe()["variant"] == variant
    return first


@pytest.mark.parametrize(("variant", "tolerance"), [("eager", 0.0), ("channels-last", 1e-4), ("fp16 channels-last", 3e-2)])
def test_variants_compute_the_same(checkpoint: Path, variant: str, tolerance: float) -> None:
    from emca_deploy.backends.torch.cpu import TorchRunner

    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with TorchRunner(str(checkpoint), RunOptions()) as runner:
        expected = runner.infer(images).copy()
    logits = run(checkpoint, variant, images)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() <= tolerance * np.abs(expected).max()


def test_an_unknown_variant(checkpoint: Path) -> None:
    with refusing(InputError, "'int4'"):
        open_gpu_runner("torch", str(checkpoint), variant="int4")


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")
def test_a_pytorch_that_finds_no_gpu(checkpoint: Path) -> None:
    with refusing(MissingError, "GPU") as caught:
        open_gpu_runner("torch", str(checkpoint)).open()
    assert caught.value.exit_code == 3


def test_onnx_runtime_without_a_cuda_provider(make_onnx) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with refusing(MissingError, "CUDA") as caught:
        open_gpu_runner("onnxruntime", str(make_onnx())).open()
    assert "onnxruntime-gpu" in caught.value.remedy


def test_a_backend_without_gpus() -> None:
    with refusing(InputError, "'fake'"):
        open_gpu_runner("fake", "fake:classes=3")
