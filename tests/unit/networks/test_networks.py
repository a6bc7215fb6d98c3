"""Positions and inputs of attention; whole networks run and train."""

import pytest

from emca_deploy.networks.registry import FAMILY_OPTIONS, create_model

EXCITATIONS = {"se": "SqueezeExcitation", "eca": "EfficientExcitation", "srm": "StyleExcitation"}


def on_meta(name, **options):
    import torch

    with torch.device("meta"):
        return create_model(name, **options)


@pytest.fixture
def narrow(small_networks):
    """Return `create_model` with a quarter of the width, for what does not depend on it."""

    def make(name, classes):
        with small_networks():
            return create_model(name, classes)

    return make


def modules_of(model):
    """Attention modules by (stage from 1, block from 0)."""
    stages = enumerate((model.stage1, model.stage2, model.stage3, model.stage4), 1)
    return {(s, b): block.attention for s, stage in stages for b, block in enumerate(stage) if block.attention is not None}


def scales_of(model):
    return {at: 1 if m.aggregation is None else m.aggregation.weight.numel() for at, m in modules_of(model).items()}


@pytest.mark.parametrize("depth", [18, 34, 50])
@pytest.mark.parametrize("kind", ["se", "eca", "srm"])
def test_baselines_have_attention_in_every_block(kind, depth):
    from emca_deploy.networks.resnet import STAGE_BLOCKS

    modules = modules_of(on_meta(f"{kind}_resnet{depth}"))
    assert set(modules) == {(s + 1, b) for s in range(4) for b in range(STAGE_BLOCKS[depth][s])}
    assert all(type(m.excitation).__name__ == EXCITATIONS[kind] and m.aggregation is None for m in modules.values())


@pytest.mark.parametrize("kind", ["se", "eca", "srm"])
def test_emca_has_attention_in_first_blocks_fed_by_the_whole_previous_stage(kind):
    model = on_meta(f"emca_{kind}_resnet50")
    assert scales_of(model) == {(1, 0): 1, (2, 0): 1 + 3, (3, 0): 1 + 4, (4, 0): 1 + 6}
    assert all(type(m.excitation).__name__ == EXCITATIONS[kind] for m in modules_of(model).values())


def test_plain_network_has_no_attention():
    assert modules_of(on_meta("resnet50")) == {}


@pytest.mark.parametrize(
    ("previous_stages", "blocks_per_stage", "scales"),
    [
        (0, "all", (1, 1, 1, 1)),
        (0, 1, (1, 1, 1, 1)),
        (1, 1, (1, 2, 2, 2)),
        (1, "all", (1, 4, 5, 7)),
        (2, 1, (1, 2, 3, 3)),
        (2, "all", (1, 4, 8, 11)),
        ("all", 1, (1, 2, 3, 4)),
        ("all", "all", (1, 4, 8, 14)),
    ],
)
@pytest.mark.parametrize(("placement", "blocks"), [("first", (0, 0, 0, 0)), ("last", (2, 3, 5, 2))])
def test_configurations(placement, blocks, previous_stages, blocks_per_stage, scales):
    options = {"placement": placement, "previous_stages": previous_stages, "blocks_per_stage": blocks_per_stage}
    model = on_meta("emca_eca_resnet34", **options)
    assert scales_of(model) == {(s + 1, blocks[s]): scales[s] for s in range(4)}


def test_sources_are_older_first_and_the_last_block_stands_for_a_stage():
    from emca_deploy.networks.resnet import AttentionConfig

    config = AttentionConfig("eca", "first", "all", 1)
    assert config.sources(3, (3, 4, 6, 3)) == [(0, 2), (1, 3), (2, 5)]
    config = AttentionConfig("eca", "first", 1, "all")
    assert config.sources(2, (3, 4, 6, 3)) == [(1, 0), (1, 1), (1, 2), (1, 3)]


@pytest.mark.parametrize("kind", ["se", "eca", "srm"])
def test_modules_get_the_outputs_of_the_right_blocks(kind, narrow):
    import torch

    from emca_deploy.networks.attention import mean_descriptor, style_descriptor
    from emca_deploy.networks.resnet import STAGE_BLOCKS

    model = narrow(f"emca_{kind}_resnet34", 10).eval()
    squeeze = style_descriptor if kind == "srm" else mean_descriptor
    outputs, previous = {}, {}
    for s, stage in enumerate((model.stage1, model.stage2, model.stage3, model.stage4), 1):
        for b, block in enumerate(stage):
            block.register_forward_hook(lambda _m, _i, out, at=(s, b): outputs.__setitem__(at, out))
    for at, module in modules_of(model).items():
        module.register_forward_pre_hook(lambda _m, args, at=at: previous.__setitem__(at, args[1]))
    with torch.no_grad():
        model(torch.randn(2, 3, 40, 40))
        for stage in (2, 3, 4):
            expected = [squeeze(outputs[stage - 1, b]) for b in range(STAGE_BLOCKS[34][stage - 2])]
            assert len(previous[stage, 0]) == len(expected)
            assert all(torch.equal(a, b) for a, b in zip(previous[stage, 0], expected, strict=True))


@pytest.mark.parametrize("name", ["eca_resnet18", "eca_resnet50"])
def test_position_is_before_the_addition_or_after_the_block(name):
    import torch

    from emca_deploy.networks.attention import ChannelAttention

    class Halve(torch.nn.Module):
        """An excitation whose gates are all 0.5."""

        def forward(self, descriptor):
            return torch.full_like(descriptor, 0.5)

    x = torch.randn(1, 64, 8, 8)
    for position in ("residual", "output"):
        block = create_model(name, position=position).stage1[0].eval()
        block.attention = ChannelAttention(Halve(), 64)
        with torch.no_grad():
            y, shortcut = block.residual(x), block.shortcut(x)
            expected = torch.relu(0.5 * y + shortcut) if position == "residual" else 0.5 * torch.relu(y + shortcut)
            torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("family", FAMILY_OPTIONS)
def test_gradients_reach_every_parameter(family):
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = create_model(f"{family}18", 5).train()
    for name, parameter in model.named_parameters():
        if name.endswith("cfc"):  # starts at zero, which stops the gradient of earlier layers
            nn.init.normal_(parameter)
        if "stage_in_fusion" in name:  # a negative weighted sum is cut off
            nn.init.constant_(parameter, 0.5)
    model(torch.randn(4, 3, 48, 48)).square().sum().backward()
    still = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    # First blocks of PKCAM have a global branch that forward does not use.
    unused = ("ECA_excitation_global_stage", "stage_in_fusion", "out_fusion")
    if family == "pkcam_eca_resnet":
        assert still == {f"stage{s}.0.{part}.0.weight" for s in (1, 2, 3, 4) for part in unused}
    else:
        assert still == set()


@pytest.mark.parametrize("size", [(32, 32), (61, 97)])
@pytest.mark.parametrize("family", FAMILY_OPTIONS)
def test_odd_image_sizes(family, size, narrow):
    import torch

    model = narrow(f"{family}18", 7).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("family", FAMILY_OPTIONS)
def test_images_of_a_batch_do_not_mix(family, narrow):
    import torch

    model = narrow(f"{family}18", 7).eval()
    x = torch.randn(3, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


def test_pkcam_stages_see_the_stem_and_the_last_block_of_each_stage():
    import torch

    from emca_deploy.networks.attention import mean_descriptor

    model = create_model("pkcam_eca_resnet18", 10).eval()
    seen, residuals = {}, {}
    for s, stage in enumerate((model.stage1, model.stage2, model.stage3, model.stage4), 1):
        stage[1].register_forward_pre_hook(lambda _m, args, s=s: seen.__setitem__(s, args[1]))
        stage[1].residual.register_forward_hook(lambda _m, _i, out, s=s: residuals.__setitem__(s, mean_descriptor(out)))
    stem = []
    model.pre.register_forward_hook(lambda _m, _i, out: stem.append(mean_descriptor(out)))
    with torch.no_grad():
        model(torch.randn(2, 3, 40, 40))
    for stage, width in ((1, 64), (2, 128), (3, 256), (4, 512)):
        whole = [stem[0], *(residuals[s] for s in range(1, stage))]
        expected = [d.repeat(1, width // d.shape[1], 1, 1) for d in whole]
        assert all(torch.equal(a, b) for a, b in zip(seen[stage], expected, strict=True))


def test_caffes_variant_moves_strides_and_padding_and_nothing_else():
    import torch

    plain, caffe = create_model("se_resnet50"), create_model("se_resnet50", caffe=True)
    assert list(plain.state_dict()) == list(caffe.state_dict())
    for model, strides in ((plain, ((1, 1), (2, 2))), (caffe, ((2, 2), (1, 1)))):
        for stage in (model.stage2, model.stage3, model.stage4):
            assert (stage[0].conv1.stride, stage[0].conv2.stride) == strides
            assert stage[0].shortcut.conv.stride == (2, 2)
            assert stage[1].conv1.stride == stage[1].conv2.stride == (1, 1)
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    assert caffe.stem.pool(x).flatten().tolist() == [14, 16, 17, 26, 28, 29, 32, 34, 35]
    assert plain.stem.pool(x).flatten().tolist() == [7, 9, 11, 19, 21, 23, 31, 33, 35]
