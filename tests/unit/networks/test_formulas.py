"""Every attention module against a plain numpy implementation of its formula."""

import numpy as np
import pytest

C = 64
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def arrays(module):
    return {key: value.detach().double().numpy() for key, value in module.state_dict().items()}


def randomised(module, seed=0):
    import torch

    generator = torch.Generator().manual_seed(seed)
    for key, value in module.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
    return module.eval()


def feature_map(channels=C, size=(7, 5), seed=1):
    import torch

    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(seed)) * 2 + 0.3


def mean(x):
    """(N, C, H, W) to (N, C)."""
    return x.double().numpy().mean((2, 3))


def slide(row, kernel):
    """Cross-correlate rows (N, C) with a kernel (k,), zeros beyond the ends."""
    half = len(kernel) // 2
    padded = np.pad(row, ((0, 0), (half, half)))
    return np.stack([(padded[:, c : c + len(kernel)] * kernel).sum(1) for c in range(row.shape[1])], 1)


def strided(stack, kernel):
    """Run Conv1d(1, 1, kernel=R, stride=R) over (N, C, R) laid out channel by channel, literally; (N, C)."""
    count, channels, scales = stack.shape
    flat = stack.reshape(count, channels * scales)
    return np.stack([(flat[:, c * scales : (c + 1) * scales] * kernel).sum(1) for c in range(channels)], 1)


def aligned(descriptor, channels):
    """Repeat the whole channel vector (N, C_m) up to `channels`."""
    return np.tile(descriptor, (1, channels // descriptor.shape[1]))


def check(result, x, gates):
    np.testing.assert_allclose(result.detach().numpy(), x.double().numpy() * gates[:, :, None, None], **TOLERANCE)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("reduction", [16, 8])
def test_se(bias, reduction):
    from emca_deploy.networks.attention import ChannelAttention, SqueezeExcitation

    module = randomised(ChannelAttention(SqueezeExcitation(C, reduction, bias), C))
    w, x = arrays(module), feature_map()
    assert w["excitation.reduce.weight"].shape == (C // reduction, C)
    hidden = relu(mean(x) @ w["excitation.reduce.weight"].T + w.get("excitation.reduce.bias", 0))
    check(module(x), x, sigmoid(hidden @ w["excitation.expand.weight"].T + w.get("excitation.expand.bias", 0)))


@pytest.mark.parametrize("kernel_size", [None, 1, 7])
def test_eca(kernel_size):
    from emca_deploy.networks.attention import ChannelAttention, EfficientExcitation

    module = randomised(ChannelAttention(EfficientExcitation(C, kernel_size), C))
    kernel, x = arrays(module)["excitation.conv.weight"].reshape(-1), feature_map()
    assert len(kernel) == (kernel_size or 3)
    check(module(x), x, sigmoid(slide(mean(x), kernel)))


@pytest.mark.parametrize(("channels", "kernel_size"), [(64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_eca_kernel_sizes(channels, kernel_size):
    from emca_deploy.networks.attention import eca_kernel_size

    t = int(abs((np.log2(channels) + 1) / 2))
    assert eca_kernel_size(channels) == kernel_size == (t if t % 2 else t + 1)


def style(x):
    """(N, C, 2): mean and sqrt of the unbiased variance + 1e-5."""
    x = x.double().numpy()
    return np.stack([x.mean((2, 3)), np.sqrt(x.var((2, 3), ddof=1) + 1e-5)], 2)


def srm_gates(w, styles):
    z = (styles * w["excitation.cfc"]).sum(2)
    normal = (z - w["excitation.bn.running_mean"]) / np.sqrt(w["excitation.bn.running_var"] + 1e-5)
    return sigmoid(normal * w["excitation.bn.weight"] + w["excitation.bn.bias"])


def test_srm_in_evaluation():
    from emca_deploy.networks.attention import ChannelAttention, StyleExcitation

    module = randomised(ChannelAttention(StyleExcitation(C), C))
    x = feature_map()
    check(module(x), x, srm_gates(arrays(module), style(x)))


def test_srm_normalises_with_the_batch_in_training():
    from emca_deploy.networks.attention import ChannelAttention, StyleExcitation

    module = randomised(ChannelAttention(StyleExcitation(C), C)).train()
    w, x = arrays(module), feature_map()
    z = (style(x) * w["excitation.cfc"]).sum(2)
    w["excitation.bn.running_mean"], w["excitation.bn.running_var"] = z.mean(0), z.var(0)
    # The float32 batch statistics of two nearly equal samples amplify rounding.
    gates = srm_gates(w, style(x))[:, :, None, None]
    np.testing.assert_allclose(module(x).detach().numpy(), x.double().numpy() * gates, rtol=1e-2, atol=1e-3)


def test_style_survives_channels_far_from_zero():
    from emca_deploy.networks.attention import style_descriptor

    x = feature_map() + 1000
    np.testing.assert_allclose(style_descriptor(x)[..., 0].numpy(), style(x), rtol=1e-4)


def test_style_of_one_pixel_has_no_deviation():
    from emca_deploy.networks.attention import style_descriptor

    descriptor = style_descriptor(feature_map(size=(1, 1)))
    np.testing.assert_allclose(descriptor[:, :, 1, 0].numpy(), np.sqrt(1e-5), rtol=1e-6)


@pytest.mark.parametrize("widths", [[32], [32, 32], [16, 16, 32], [64], [16, 32, 16]])
def test_aggregation_is_the_papers_strided_convolution(widths):
    import torch

    from emca_deploy.networks.attention import MultiscaleAggregation

    module = MultiscaleAggregation(C, widths)
    torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(0))
    maps = [feature_map(width, (9 - i, 9 - i), seed=i) for i, width in enumerate(widths)]
    current = feature_map()
    previous = [torch.from_numpy(mean(m))[:, :, None, None].float() for m in maps]
    stack = np.stack([*(aligned(mean(m), C) for m in maps), mean(current)], 2)
    expected = relu(strided(stack, arrays(module)["weight"].reshape(-1)))
    result = module(torch.from_numpy(mean(current))[:, :, None, None].float(), previous)
    np.testing.assert_allclose(result[:, :, 0, 0].detach().numpy(), expected, **TOLERANCE)
    assert (expected == 0).any()
    assert (expected > 0).any()


def test_aggregation_handles_both_statistics_of_srm():
    from emca_deploy.networks.attention import ChannelAttention, StyleExcitation, style_descriptor

    module = randomised(ChannelAttention(StyleExcitation(C), C, [32, 32]))
    x, maps = feature_map(), [feature_map(32, (14, 10), seed=s) for s in (5, 6)]
    w = arrays(module)
    kernel = w["aggregation.weight"].reshape(-1)
    mixed = [
        relu(strided(np.stack([*(aligned(style(m)[:, :, k], C) for m in maps), style(x)[:, :, k]], 2), kernel)) for k in (0, 1)
    ]
    check(module(x, [style_descriptor(m) for m in maps]), x, srm_gates(w, np.stack(mixed, 2)))


def pkcam_kernel(w, name):
    return w[f"{name}.0.weight"].reshape(-1)


@pytest.mark.parametrize("first", [True, False])
def test_pkcam_gates(first):
    import torch

    from emca_deploy.networks.pkcam import PkcamBlock

    block = randomised(PkcamBlock(128, 128, 1, stage=2, first=first, bottleneck=False))
    w = arrays(block)
    d = mean(feature_map(128))
    stages = [mean(feature_map(64, seed=8)), mean(feature_map(64, seed=9))]
    gates = sigmoid(slide(d, pkcam_kernel(w, "ECA_excitation_local")))
    if not first:
        stack = np.stack([*(aligned(s, 128) for s in stages), d], 2)
        mixed = relu(strided(stack, pkcam_kernel(w, "stage_in_fusion")))
        global_gates = sigmoid(slide(mixed, pkcam_kernel(w, "ECA_excitation_global_stage")))
        gates = sigmoid(strided(np.stack([gates, global_gates], 2), pkcam_kernel(w, "out_fusion")))

    def tensor(array):
        return torch.from_numpy(array)[:, :, None, None].float()

    result = block.gates(tensor(d), [tensor(aligned(s, 128)) for s in stages])
    np.testing.assert_allclose(result[:, :, 0, 0].detach().numpy(), gates, **TOLERANCE)


def test_pkcam_block_adds_the_gated_residual_to_itself_and_the_shortcut():
    import torch

    from emca_deploy.networks.pkcam import PkcamBlock

    block = randomised(PkcamBlock(64, 128, 2, stage=2, first=True, bottleneck=False))
    x = feature_map(64, (8, 8))
    with torch.no_grad():
        out, descriptor = block(x, [])
        y = block.residual(x)
        gates = sigmoid(slide(mean(y), pkcam_kernel(arrays(block), "ECA_excitation_local")))[:, :, None, None]
        expected = relu(y.double().numpy() * (1 + gates) + block.shortcut(x).double().numpy())
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(descriptor[:, :, 0, 0].numpy(), mean(y), **TOLERANCE)
