"""The graph that is written while a module runs on a tensor without data."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from refusals import refusing

from emca_deploy.errors import ModelError
from emca_deploy.exporting.exporter import export_onnx

torch = pytest.importorskip("torch")
SIZE = (11, 14)


class Classifier(torch.nn.Module):
    """A layer, a mean over its map, and a classifier."""

    def __init__(self, layer, channels):
        super().__init__()
        self.layer = layer
        self.head = torch.nn.Linear(channels, 5)

    def forward(self, images):
        return self.head(self.layer(images).mean((2, 3)))


class Called(torch.nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images)


LAYERS = {
    "strides": (lambda: torch.nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=(1, 0)), 4),
    "dilation and groups": (lambda: torch.nn.Conv2d(3, 6, 3, dilation=2, groups=3, bias=False), 6),
    "norm": (lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)), 4),
    "pooling that rounds up": (lambda: torch.nn.MaxPool2d(3, stride=2, ceil_mode=True), 3),
    "pooling whose last window would begin in padding": (lambda: torch.nn.MaxPool2d(2, stride=3, padding=1, ceil_mode=True), 3),
    "pooling with dilation": (lambda: torch.nn.MaxPool2d(2, dilation=3), 3),
    "numbers": (lambda: Called(lambda x: torch.sqrt(torch.sigmoid((1 + x * 2) / 3 - 0.5) + 1e-5)), 3),
    "one of a list": (lambda: Called(lambda x: torch.cat([x], 1)), 3),
    "joined": (lambda: Called(lambda x: torch.cat([x, torch.relu(x), x], dim=-3)), 9),
    "sums": (lambda: Called(lambda x: x.sum(-1, keepdim=True) + x.sum((2, 3), keepdim=True)), 3),
    "shapes": (
        lambda: Called(
            lambda x: (
                x.reshape(-1, 1, 3, x.shape[2] * x.size(3))
                + x.flatten(2).reshape((-1, 3, 14, 11)).mean(3, keepdim=True).mean(2, keepdim=True)
            )
        ),
        3,
    ),
}


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_the_graph_computes_what_the_module_does(name, batch):
    torch.manual_seed(0)
    build, channels = LAYERS[name]
    module = Classifier(build(), channels).eval()
    images = torch.randn(2, 3, *SIZE)
    model = export_onnx(module, SIZE, batch)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        shape, expected = list(module.layer(images).shape), module(images).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, rtol=1e-5, atol=1e-6)
    mean = next(node for node in model.graph if node.op_type == "GlobalAveragePool")
    assert list(mean.inputs[0].shape) == ["batch" if batch is None else batch, *shape[1:]]


@pytest.mark.parametrize("same", [lambda x: x * 1.0, lambda x: torch.cat([x], 1)])
def test_what_changes_nothing_is_not_written(same):
    model = export_onnx(Classifier(Called(same), 3), SIZE)
    assert [node.op_type for node in model.graph] == ["GlobalAveragePool", "Flatten", "Gemm"]


def test_a_function_without_a_form_is_refused():
    with refusing(ModelError, "cumsum"):
        export_onnx(Classifier(Called(lambda x: x.cumsum(1)), 3), SIZE)


def test_images_that_are_too_small_are_refused():
    with refusing(ModelError, "too small"):
        export_onnx(Classifier(torch.nn.Conv2d(3, 4, 12), 4), SIZE)


def test_two_exports_have_the_same_bytes_and_leave_the_module_as_it_was(lively_network):
    module = lively_network("emca_srm_resnet10")
    first, second = (ir.to_proto(export_onnx(module, 32)).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())
