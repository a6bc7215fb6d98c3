"""The sample in the package: a small trained network, and images to calibrate and test it with."""

from pathlib import Path

from emca_deploy.errors import MissingError
from emca_deploy.preprocessing import Preprocessing

__all__ = ["BUNDLED_ARCH", "BUNDLED_PREPROCESSING", "bundled_calibration_images", "bundled_checkpoint", "bundled_test_images"]

BUNDLED_ARCH = "emca_eca_resnet18"
BUNDLED_PREPROCESSING = Preprocessing(64, 64, (0.286, 0.286, 0.286), (0.353, 0.353, 0.353))
_FOLDER = Path(__file__).with_name("bundled")


def bundled_checkpoint() -> Path:
    """Return the trained network: `BUNDLED_ARCH`, ten classes, 64x64.

    Raises:
        MissingError: this installation lacks the file.
    """
    return _bundled("emca_eca_resnet18_fashion_mnist.safetensors")


def bundled_test_images() -> Path:
    """Return a zip of 2,000 of Fashion-MNIST's test images, 200 per class; raises as `bundled_checkpoint`."""
    return _bundled("fashion_mnist_test.zip")


def bundled_calibration_images() -> Path:
    """Return a zip of 512 of Fashion-MNIST's training images, 51 or 52 per class; raises as `bundled_checkpoint`."""
    return _bundled("fashion_mnist_calibration.zip")


def _bundled(name: str) -> Path:
    path = _FOLDER / name
    if not path.is_file():
        raise MissingError(f"{path}: the bundled file is missing", "install emca-deploy again, from a wheel or a full checkout")
    return path
