"""The networks of `networks.py` as PyTorch modules, and their files from PyTorch's two exporters."""

from io import BytesIO
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import nn

from zoo.networks import SIZE, Describe, Weights


class _Map:
    """A torch tensor with its number of channels as a Python number."""

    def __init__(self, tensor: torch.Tensor, channels: int) -> None:
        self.tensor, self.channels = tensor, channels


class TorchOperations:
    """Operations that compute with torch, in the usual style of such networks."""

    def __init__(self, weight: Any) -> None:
        self._weight = weight

    def conv(self, x: _Map, name: str, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> _Map:
        weight = self._weight(f"{name}.weight", (channels, x.channels // groups, kernel, kernel))
        bias = self._weight(f"{name}.bias", (channels,), 0.1)
        return _Map(F.conv2d(x.tensor, weight, bias, stride=stride, padding=kernel // 2, groups=groups), channels)

    def relu(self, x: _Map, name: str) -> _Map:
        return _Map(F.relu(x.tensor), x.channels)

    def clip6(self, x: _Map, name: str) -> _Map:
        return _Map(F.relu6(x.tensor), x.channels)

    def sigmoid(self, x: _Map, name: str) -> _Map:
        return _Map(torch.sigmoid(x.tensor), x.channels)

    def add(self, x: _Map, y: _Map, name: str) -> _Map:
        return _Map(x.tensor + y.tensor, x.channels)

    def mul(self, x: _Map, y: _Map, name: str) -> _Map:
        return _Map(x.tensor * y.tensor.expand_as(x.tensor), x.channels)

    def max_pool(self, x: _Map, name: str) -> _Map:
        return _Map(F.max_pool2d(x.tensor, 3, 2, 1), x.channels)

    def mean(self, x: _Map, name: str) -> _Map:
        return _Map(F.adaptive_avg_pool2d(x.tensor, 1), x.channels)

    def deviation(self, x: _Map, mean: _Map, name: str) -> _Map:
        centred = x.tensor - mean.tensor
        return _Map(torch.sqrt((centred * centred).mean((2, 3), keepdim=True) + 1e-5), x.channels)

    def style(self, x: _Map, y: _Map, name: str) -> _Map:
        weight = self._weight(f"{name}.weight", (x.channels, 1, 2, 1))
        return _Map(F.conv2d(torch.cat([x.tensor, y.tensor], 2), weight, groups=x.channels), x.channels)

    def across(self, x: _Map, name: str, kernel: int = 3) -> _Map:
        weight = self._weight(f"{name}.weight", (1, 1, kernel, 1), 1.0)[..., 0]
        row = x.tensor.squeeze(-1).transpose(-1, -2)
        return _Map(F.conv1d(row, weight, padding=kernel // 2).transpose(-1, -2).unsqueeze(-1), x.channels)

    def mix(self, now: _Map, before: _Map, name: str) -> _Map:
        repeated = before.tensor.repeat(1, now.channels // before.channels, 1, 1)
        return _Map(F.relu(now.tensor * 0.5 + repeated * 0.5), now.channels)

    def linear(self, x: _Map, name: str, classes: int) -> _Map:
        weight, bias = self._weight(f"{name}.weight", (classes, x.channels)), self._weight(f"{name}.bias", (classes,), 0.1)
        return _Map(F.linear(torch.flatten(x.tensor, 1), weight, bias), classes)


class Network(nn.Module):
    """A described network; its parameters are named as the ONNX graph's initializers."""

    def __init__(self, describe: Describe, seed: int = 0, size: int = SIZE) -> None:
        super().__init__()
        self._describe, self._source = describe, Weights(seed)
        self.made = nn.ParameterDict()
        with torch.no_grad():
            self(torch.zeros(1, 3, size, size))

    def _weight(self, name: str, shape: tuple[int, ...], scale: float | None = None) -> torch.Tensor:
        key = name.replace(".", "_")
        if key not in self.made:
            array = self._source.get(name, shape, scale)
            self.made[key] = nn.Parameter(torch.from_numpy(array.copy()), requires_grad=False)
        return self.made[key]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self._describe(TorchOperations(self._weight), _Map(images, 3)).tensor


def exported(describe: Describe, seed: int = 0, size: int = SIZE, *, dynamo: bool, dynamic: bool = True) -> onnx.ModelProto:
    """Return the file of a plain call of torch.onnx.export."""
    module = Network(describe, seed, size).eval()
    images = torch.zeros(2, 3, size, size)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
        program = torch.onnx.export(module, (images,), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
        return program.model_proto
    buffer = BytesIO()
    axes = {"images": {0: "batch"}, "logits": {0: "batch"}} if dynamic else None
    torch.onnx.export(module, (images,), buffer, dynamo=False, dynamic_axes=axes, **names)
    return onnx.load_from_string(buffer.getvalue())
