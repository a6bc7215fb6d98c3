"""Each function of torch that a detector calls, alone in a graph, against PyTorch."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from refusals import refusing

from emca_deploy.errors import ModelError

torch = pytest.importorskip("torch")
F = torch.nn.functional
SIDES = (6, 8)

FUNCTIONS = {
    "numbers from the left": lambda x: 1 - x + 2 / (x + 9),
    "types": lambda x: (x * 10).to(torch.int64) * 2 + (x > 0),
    "integers times floats": lambda x: (x * 10).long() * 0.5 + (x * 10).int().float(),
    "comparisons": lambda x: [x > 0, x >= 0.1, x < x.mean(), x <= 0, (x * 3).long() == 1, (x * 3).long() != 1],
    "logic": lambda x: [(x > 0) & (x < 1), (x > 1) | ~(x > -1), torch.logical_and(x > 0, x < 1)],
    "choice": lambda x: [torch.where(x > 0, x, 0.0), torch.where(x > 0, x, -x), x.masked_fill(x < 0, float("-inf"))],
    "places in a table": lambda x: [
        (x.abs() * 50).long() // 7,
        (x.abs() * 50).long() % 7,
        torch.div((x.abs() * 50).long(), 7, rounding_mode="floor"),
    ],
    "floors": lambda x: [torch.log2(x.abs() + 1).floor(), (x * 3) // 2, x.exp().log(), (-x).abs().ceil()],
    "limits": lambda x: [
        x.clamp(-0.5, 0.5),
        x.clamp(max=0.1),
        torch.clamp(x, min=0),
        x.clamp(max=x.mean()),
        torch.minimum(x, -x),
        torch.maximum(x, -x),
    ],
    "sums": lambda x: [
        (x > 0).sum(-1),
        (x > 0).to(torch.int32).sum(1, dtype=torch.int32),
        x.amax(1),
        x.sum(),
        (x > 2).any(dim=-1),
        x.max(-1).values,
        x.max(-1).indices,
        x.argmax(1, keepdim=True),
    ],
    "shapes": lambda x: [
        x[:, None].squeeze(1),
        x.unsqueeze(-1).squeeze(),
        x.permute(0, 2, 3, 1).reshape(2, -1, 3),
        x.transpose(1, 3),
        x.mT,
        x.view(2, -1),
    ],
    "expanded": lambda x: [
        x[:, :1].expand(-1, 5, -1, -1),
        x[:, :1].expand(2, 4, *x.shape[2:]),
        x[:, :, None].repeat(1, 1, 3, 1, 1),
    ],
    "slices": lambda x: [
        x[:, 1],
        x[..., -1],
        x[:, :, 1::2, None, :3],
        x[:, -2:],
        x[0],
        x[:, [2, 0]],
        x[..., torch.tensor([1, 1, 0])],
    ],
    "parts": lambda x: [*x.split(3, -1), *x.chunk(2, 2), *x.unbind(1), torch.stack(x.unbind(-1), -1), torch.stack([x, x], 1)],
    "joined with a constant": lambda x: torch.cat(
        [x.flatten(1), torch.zeros(2, 4, dtype=x.dtype, device=x.device), x.new_zeros(2, 1)], 1
    ),
    "best": lambda x: [*x.flatten(1).topk(7), *torch.topk(x, 3, dim=1, largest=False), *x.sort(dim=-1, descending=True)],
    "gathered": lambda x: [
        x.flatten(1).gather(1, x.flatten(1).topk(5).indices),
        x.gather(1, (x[:, :1] > 0).long() + 1),
        x[0, 0, 0].index_select(0, (x[0, 0] > 0).long()[0]),
    ],
    "suppression": lambda x: (x.flatten(2) @ x.flatten(2).transpose(1, 2)).triu(1) * torch.ones(3, 3).triu(1),
    "softmax": lambda x: [x.softmax(-1), F.softmax(x, dim=1), torch.bmm(x[0], x[0].mT)],
    "resized": lambda x: [
        F.interpolate(x, scale_factor=2.0, mode="nearest"),
        F.interpolate(x, size=(9, 13), mode="nearest"),
        F.interpolate(x, (12, 16)),
    ],
    "padded": lambda x: [
        F.pad(x, (1, 2, 3, 0), mode="replicate"),
        F.pad(x, (1, 0)),
        F.pad(x, (0, 1, 0, 2), value=-1.0),
        F.pad((x > 0).long(), (0, 3), value=-1),
    ],
    "pooled": lambda x: [F.avg_pool2d(x, 2), F.avg_pool2d(x, (3, 2), 1, 1), F.max_pool2d(x, 1, 2), F.max_pool2d(x, 2)],
    "grid": lambda x: [
        F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).clamp(-1.2, 1.2), align_corners=False, padding_mode="border"),
        F.grid_sample(x, x[:, 1:].permute(0, 2, 3, 1), mode="bilinear", align_corners=True),
    ],
    "row by row": lambda x: torch.stack([row * index for index, row in enumerate(x)]),
}


class Called(torch.nn.Module):
    """A function as a network with named outputs."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.function = function
        self.layer = layer

    def forward(self, images):
        results = self.function(images)
        return {f"output{at}": each for at, each in enumerate(results if isinstance(results, list) else [results])}


def ran(module, images):
    """Return the outputs of the exported graph, whose shapes and types have to be those that the graph states."""
    from emca_deploy.exporting.tracing import trace

    model = trace(module.eval(), images.shape[2:], len(images), 20, "images")
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"images": images.numpy()})
    for value, array in zip(model.graph.outputs, outputs, strict=True):
        assert (list(value.shape), value.dtype.numpy()) == (list(array.shape), array.dtype)
    return {value.name: array for value, array in zip(model.graph.outputs, outputs, strict=True)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_alone_computes_what_pytorch_does(name):
    torch.manual_seed(0)
    images = torch.randn(2, 3, *SIDES)
    module = Called(FUNCTIONS[name])
    with torch.inference_mode():
        expected = {key: value.numpy() for key, value in module(images).items()}
    found = ran(module, images)
    assert list(found) == list(expected)
    for key, array in expected.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_allclose(found[key], array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: torch.nn.ConvTranspose2d(3, 4, 2, stride=2),
        lambda: torch.nn.ConvTranspose2d(3, 6, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=1, groups=3, bias=False),
        lambda: torch.nn.Linear(SIDES[1], 5),
        lambda: torch.nn.Linear(SIDES[1], 5, bias=False),
    ],
)
def test_a_layer_alone_computes_what_pytorch_does(layer):
    torch.manual_seed(0)
    images, built = torch.randn(2, 3, *SIDES), layer()
    with torch.inference_mode():
        expected = built(images).numpy()
    np.testing.assert_allclose(ran(Called(built, built), images)["output0"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.cumsum(1),
        lambda x: x[x > 0],
        lambda x: x[torch.tensor([0]), torch.tensor([1])],
        lambda x: x % 2.0,
        lambda x: torch.div(x, 2, rounding_mode="trunc"),
        lambda x: torch.add(x, x, alpha=2),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    ],
)
def test_what_the_graph_cannot_have_is_refused(function):
    with refusing(ModelError, "cannot write"):
        ran(Called(function), torch.zeros(2, 3, *SIDES))
