"""Licences in a bundle: this package's, the checkpoint's, and those of others' code and images that are really handed over."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from emca_deploy.data.bundled import bundled_licence, is_bundled_image
from emca_deploy.errors import MissingError

__all__ = ["CHECKPOINT_LICENCE", "notices"]

CHECKPOINT_LICENCE = "licences/checkpoint.txt"
_OWN, _FASHION_MNIST, _PILLOW = "licences/emca-deploy.txt", "licences/fashion-mnist.txt", "licences/pillow.txt"
_IMAGES, _RESAMPLING = "golden/images/", "code/cpp/resample.hpp"


def notices(files: Mapping[str, Path], texts: Mapping[str, str], checkpoint: str) -> dict[str, str]:
    """Return the texts of licences by their names in the bundle.

    Args:
        files: Files of the bundle by name.
        texts: Texts of the bundle by name.
        checkpoint: Text of the checkpoint's licence; empty where there is none.

    Raises:
        MissingError: this installation lacks the text of a licence.
    """
    found = {_OWN: _own_licence()}
    if checkpoint:
        found[CHECKPOINT_LICENCE] = checkpoint
    if any(is_bundled_image(path) for name, path in files.items() if name.startswith(_IMAGES)):
        found[_FASHION_MNIST] = bundled_licence().read_text(encoding="utf-8")
    if _RESAMPLING in texts:  # it follows Pillow's code
        place = Path(__file__).with_name("templates") / _PILLOW
        found[_PILLOW] = place.read_text(encoding="utf-8")
    return found


def _own_licence() -> str:
    """Return the licence of this package, from its installation or its repository."""
    place = Path(__file__).parents[2] / "LICENSE"
    if place.is_file():
        return place.read_text(encoding="utf-8")
    try:
        text = distribution("emca-deploy").read_text("licenses/LICENSE")
    except PackageNotFoundError:
        text = None
    if text is None:
        raise MissingError("this installation of emca-deploy lacks its licence", "install it again, from a wheel")
    return text
