"""Checkpoints that tests write, and checks of the loaded network."""

import re

import pytest

from emca_deploy.errors import CheckpointError
from emca_deploy.networks.checkpoints import load_checkpoint
from emca_deploy.networks.layouts import foreign_name
from emca_deploy.networks.registry import create_model


def saved(folder, value, name="weights.pth", **options):
    import torch

    path = folder / name
    torch.save(value, path, **options)
    return path


def randomise(module, seed=0):
    """Give every parameter and statistic its own value: a swapped tensor is then detected."""

    import torch

    generator = torch.Generator().manual_seed(seed)
    for key, value in module.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.ndim >= 1 and value.is_floating_point():
            spread = 0.2 if value.ndim == 1 else 0.7 / value[0].numel() ** 0.5
            value.copy_(torch.randn(value.shape, generator=generator) * spread)
            if re.search(r"(bn\d?|downsample\.1)\.weight$", key):
                value.add_(1)
    return module.eval()


def image(size=40):
    import torch

    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


def assert_equal_logits(a, b):
    import torch

    with torch.inference_mode():
        logits = a(image())
        assert logits.std() > 1e-3
        assert torch.equal(logits, b(image()))


def assert_close_logits(a, b):
    import torch

    with torch.inference_mode():
        logits = a(image())
        assert logits.std() > 1e-3
        torch.testing.assert_close(b(image()), logits, rtol=1e-3, atol=1e-3 * float(logits.std()))


def numbered(arch="resnet18", classes=7, start=1):
    """Our state dict of `arch`: tensor i contains (start + i) / 1024, which every float format can represent."""

    import torch

    with torch.device("meta"):
        shapes = create_model(arch, classes).state_dict()
    return {
        name: torch.tensor((start + i) / 1024).expand(value.shape) if value.is_floating_point() else torch.tensor(3)
        for i, (name, value) in enumerate(shapes.items())
    }


def torchvision(state):
    return {foreign_name(name, "torchvision"): value for name, value in state.items()}


def hugging_face(state):
    return {
        ("classifier.1." + name[5:] if name.startswith("head.") else "resnet." + foreign_name(name, "huggingface")): value
        for name, value in state.items()
    }


def mmpretrain(state):
    return {("head." if name.startswith("fc.") else "backbone.") + name: value for name, value in torchvision(state).items()}


def sequential(state):
    return {
        ("fc." + name[5:] if name.startswith("head.") else "features." + foreign_name(name, "sequential")): value
        for name, value in state.items()
    }


def dropout_head(state):
    return {re.sub(r"^fc\.", "fc.1.", name): value for name, value in torchvision(state).items()}


LAYOUTS = {
    "native": dict,
    "torchvision": torchvision,
    "hugging face": hugging_face,
    "mmpretrain": mmpretrain,
    "sequential": sequential,
    "dropout": dropout_head,
}


def assert_loads(path, state, **options):
    import torch

    module, spec = load_checkpoint(path, **options)
    loaded = module.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            assert torch.equal(loaded[name], value), name
    return spec


def refused(path, **options):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **options)
    assert str(path) in caught.value.problem
    assert caught.value.remedy
    return caught.value


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}
