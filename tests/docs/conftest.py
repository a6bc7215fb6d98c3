"""Files that the Python page names: a small network's checkpoint and a few images of its three classes."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory, lively_network):
    import torch

    path = tmp_path_factory.mktemp("small") / "small.pth"
    torch.save(lively_network("emca_eca_resnet10", 3, seed=1).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def labelled_images(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("labelled")
    for label in range(3):
        (folder / str(label)).mkdir()
        for index, pixels in enumerate(np.random.default_rng(label).integers(0, 256, (4, 40, 40, 3), np.uint8)):
            Image.fromarray(pixels).save(folder / str(label) / f"{index}.png")
    return folder
