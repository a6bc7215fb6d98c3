"""Loading checkpoints of every layout, and what is said of those that fit nothing."""

import functools
import importlib.util
import re
from pathlib import Path

import pytest
from refusals import refusing

import emca_deploy
from emca_deploy.errors import CheckpointError, UnknownNameError
from emca_deploy.networks.checkpoints import load_checkpoint
from emca_deploy.networks.registry import FAMILY_OPTIONS, count_parameters, create_model


@functools.cache
def foreign():
    # The tests have no packages, so that a helper beside them is loaded by its path.
    spec = importlib.util.spec_from_file_location("foreign_resnets", Path(__file__).with_name("foreign.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SLOW = pytest.mark.slow
DEEP_TWINS = {"torchvision-50", "ecanet-50"}
"""Of forms that another case has at this depth, or at another."""


def randomise(module, seed=0):
    """Give every parameter and statistic a value of its own, so that a swapped tensor shows."""

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


def saved(tmp_path, state, name="weights.pth"):
    import torch

    path = tmp_path / name
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("family", "depth"),
    [*((family, 18) for family in FAMILY_OPTIONS), pytest.param("emca_se_resnet", 50, marks=SLOW), ("emca_srm_resnet", 50)],
)
def test_native_round_trip(tmp_path, family, depth):
    model = randomise(create_model(f"{family}{depth}", 7))
    loaded, spec = load_checkpoint(saved(tmp_path, model.state_dict()))
    assert (spec.arch, spec.num_classes, spec.options) == (f"{family}{depth}", 7, {})
    assert spec.layout == ("pkcam" if family == "pkcam_eca_resnet" else "native")
    assert spec.params == count_parameters(model)
    assert not loaded.training
    assert_equal_logits(model, loaded)


def test_position_is_what_the_caller_says(tmp_path):
    model = randomise(create_model("emca_eca_resnet18", 5, position="output"))
    path = saved(tmp_path, model.state_dict())
    loaded, spec = load_checkpoint(path, position="output")
    assert spec.options == {"position": "output"}
    assert_equal_logits(model, loaded)
    assert load_checkpoint(path)[1].options == {}


KERNELS_18 = (3, 5, 7, 7)
FOREIGN = {
    "torchvision-18": (lambda: foreign().ForeignResNet(18, 6), "resnet18", {}, "torchvision"),
    "torchvision-50": (lambda: foreign().ForeignResNet(50, 6), "resnet50", {}, "torchvision"),
    "ecanet-18": (
        lambda: foreign().ForeignResNet(18, 6, "eca", lambda s, c: foreign().Eca(c, KERNELS_18[s])),
        "eca_resnet18",
        {"eca_kernel_sizes": KERNELS_18},
        "torchvision",
    ),
    "ecanet-50": (
        lambda: foreign().ForeignResNet(50, 6, "eca", lambda s, c: foreign().Eca(c, (5, 5, 5, 7)[s])),
        "eca_resnet50",
        {},
        "torchvision",
    ),
    "senet-34": (lambda: foreign().ForeignResNet(34, 6, "se", lambda s, c: foreign().SeNet(c)), "se_resnet34", {}, "torchvision"),
    "timm-se-18": (
        lambda: foreign().ForeignResNet(18, 6, "se", lambda s, c: foreign().SeConv(c, smallest=8)),
        "se_resnet18",
        {"se_bias": True, "se_reduction": (8, 16, 16, 16)},
        "timm",
    ),
    "timm-se-50": (
        lambda: foreign().ForeignResNet(50, 6, "se", lambda s, c: foreign().SeConv(c, smallest=8)),
        "se_resnet50",
        {"se_bias": True},
        "timm",
    ),
    "timm-eca-18": (
        lambda: foreign().ForeignResNet(18, 6, "se", lambda s, c: foreign().Eca(c, (3, 5, 5, 5)[s])),
        "eca_resnet18",
        {},
        "timm",
    ),
    "pretrained-models-50": (
        lambda: foreign().ForeignResNet(50, 6, "se_module", lambda s, c: foreign().SeConv(c), caffe=True),
        "se_resnet50",
        {"se_bias": True, "caffe": True},
        "pretrained-models",
    ),
    "se-module-18": (
        lambda: foreign().ForeignResNet(18, 6, "se_module", lambda s, c: foreign().SeConv(c)),
        "se_resnet18",
        {"se_bias": True},
        "pretrained-models",
    ),
    "srm-18": (lambda: foreign().ForeignResNet(18, 6, "rclb", lambda s, c: foreign().Srm(c)), "srm_resnet18", {}, "srm"),
    "srm-layer-18": (
        lambda: foreign().ForeignResNet(18, 6, "srm", lambda s, c: foreign().Srm(c, convolution=True)),
        "srm_resnet18",
        {},
        "srm",
    ),
    "srm-se-18": (
        lambda: foreign().ForeignResNet(18, 6, "rclb", lambda s, c: foreign().SeNet(c, bias=True)),
        "se_resnet18",
        {"se_bias": True},
        "srm",
    ),
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=SLOW if case in DEEP_TWINS else ()) for case in FOREIGN])
def test_foreign_networks_keep_their_logits(tmp_path, case):
    make, arch, options, layout = FOREIGN[case]
    model = randomise(make())
    loaded, spec = load_checkpoint(saved(tmp_path, model.state_dict()))
    assert (spec.arch, spec.num_classes, spec.options, spec.layout) == (arch, 6, options, layout)
    assert spec.params == count_parameters(model)
    assert_close_logits(model, loaded)
    # The two networks add in another order; that the weights themselves arrive exactly is seen from their sums.
    ours, theirs = (sorted(float(v.double().sum()) for v in m.state_dict().values()) for m in (loaded, model))
    assert ours == theirs


def as_hugging_face(key):
    """Torchvision's names as transformers' ResNetForImageClassification has them."""
    key = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", key)
    key = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", key)
    key = re.sub(r"^fc\.", "classifier.1.", key)
    match = re.match(r"layer(\d)\.(\d+)\.(conv|bn|downsample)\.?(\d)\.(.*)", key)
    if match is None:
        return key
    stage, block, kind, number, rest = match.groups()
    normalises = kind == "bn" or (kind == "downsample" and number == "1")
    part = "shortcut" if kind == "downsample" else f"layer.{int(number) - 1}"
    module = "normalization" if normalises else "convolution"
    return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.{part}.{module}.{rest}"


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=SLOW)])
def test_hugging_faces_network_keeps_its_logits(tmp_path, depth):
    from safetensors.torch import save_file

    model = randomise(foreign().ForeignResNet(depth, 6))
    path = tmp_path / "model.safetensors"
    save_file({as_hugging_face(key): value.contiguous() for key, value in model.state_dict().items()}, path)
    loaded, spec = load_checkpoint(path)
    assert (spec.arch, spec.layout, spec.source.head) == (f"resnet{depth}", "huggingface", "classifier.1")
    assert_close_logits(model, loaded)


def test_a_sequential_of_torchvisions_children_keeps_its_logits(tmp_path):
    from torch import nn

    model = randomise(foreign().ForeignResNet(18, 6))
    stages = [model.get_submodule(f"layer{stage}") for stage in range(1, 5)]
    wrapper = nn.Module()
    wrapper.features = nn.Sequential(model.conv1, model.bn1, nn.ReLU(), nn.MaxPool2d(3, 2, 1), *stages, nn.AdaptiveAvgPool2d(1))
    wrapper.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(), model.fc)
    loaded, spec = load_checkpoint(saved(tmp_path, wrapper.state_dict()))
    assert (spec.layout, spec.source.prefix, spec.source.head) == ("sequential", "features.", "classifier.2")
    assert_close_logits(model, loaded)


@pytest.mark.parametrize("name", ["se_resnet18", "eca_resnet18", "srm_resnet18", "resnet18"])
def test_renamed_keys_give_the_same_logits_exactly(tmp_path, name):
    model = randomise(create_model(name, 4))
    theirs = {
        r"^stem\.conv": "conv1",
        r"^stem\.bn": "bn1",
        r"^head": "fc",
        r"stage(\d)\.block(\d)": r"layer\1.\2",
        r"shortcut\.conv": "downsample.0",
        r"shortcut\.bn": "downsample.1",
        r"attention\.excitation\.reduce": "se.fc.0",
        r"attention\.excitation\.expand": "se.fc.2",
        r"attention\.excitation\.conv": "eca.conv",
        r"attention\.excitation\.(cfc|bn)": r"rclb.\1",
    }
    state = model.state_dict()
    for ours, foreign_name in theirs.items():
        state = {re.sub(ours, foreign_name, key): value for key, value in state.items()}
    assert not any("stage" in key or "attention" in key for key in state)
    loaded, spec = load_checkpoint(saved(tmp_path, state))
    assert (spec.arch, spec.options) == (name, {})
    assert_equal_logits(model, loaded)


def test_released_training_script(tmp_path):
    import torch

    model = randomise(create_model("pkcam_eca_resnet50", 11))
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9).state_dict()
    path = saved(
        tmp_path,
        {"epoch": 90, "arch": "resnet50", "state_dict": state, "best_acc1": torch.tensor(75.0), "optimizer": optimizer},
        "model_best.pth.tar",
    )
    loaded, spec = load_checkpoint(path)
    assert (spec.arch, spec.num_classes, spec.layout) == ("pkcam_eca_resnet50", 11, "pkcam")
    assert_equal_logits(model, loaded)


def test_safetensors_in_half_precision(tmp_path):
    import torch
    from safetensors.torch import save_file

    model = randomise(create_model("emca_eca_resnet18", 10))
    half = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    path = tmp_path / "model.safetensors"
    save_file(half, path, metadata={"arch": "emca_se_resnet50"})  # a wrong hint must not matter
    loaded, spec = load_checkpoint(path)
    assert (spec.arch, spec.options) == ("emca_eca_resnet18", {})
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    model.load_state_dict(half)
    assert_equal_logits(model, loaded)


def test_counters_of_batch_norm_may_be_missing(tmp_path):
    model = randomise(create_model("resnet18", 10))
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    loaded, _ = load_checkpoint(saved(tmp_path, state))
    assert_equal_logits(model, loaded)


def test_loaded_weights_do_not_depend_on_the_file(tmp_path):
    from safetensors.torch import save_file

    model = randomise(create_model("emca_eca_resnet18", 10))
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    loaded, _ = load_checkpoint(path)
    with path.open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\xff" * 1_000_000)
    assert_equal_logits(model, loaded)


def test_a_wanted_architecture_is_checked(tmp_path):
    path = saved(tmp_path, create_model("emca_eca_resnet18", 10, blocks_per_stage=1).state_dict())
    assert load_checkpoint(path, "emca_eca_resnet18")[1].options == {"blocks_per_stage": 1}
    with refusing(CheckpointError, path, " eca_resnet18", "emca_eca_resnet18", "blocks_per_stage=1") as caught:
        load_checkpoint(path, "eca_resnet18")
    assert "--arch emca_eca_resnet18" in caught.value.remedy
    with pytest.raises(UnknownNameError):
        load_checkpoint(path, "resnet19")


def problem_of(tmp_path, state, arch=None):
    path = saved(tmp_path, state)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, arch)
    assert caught.value.problem.startswith(f"{path}: ")
    assert "\n" not in caught.value.problem
    return caught.value.problem


def test_what_fits_nothing_names_the_nearest_and_the_keys(tmp_path):
    import torch

    state = create_model("emca_eca_resnet18", 10).state_dict()
    del state["stage4.block1.conv2.weight"], state["stage4.block1.bn2.weight"]
    state["stage1.block0.gate.weight"] = torch.zeros(3)
    state["stage1.block0.conv1.weight"] = torch.zeros(64, 32, 3, 3)
    problem = problem_of(tmp_path, state)
    assert "the nearest is emca_eca_resnet18" in problem
    assert "missing 2: stage4.block1.conv2.weight, stage4.block1.bn2.weight" in problem
    assert "unexpected 1: stage1.block0.gate.weight" in problem
    assert "misshapen 1: stage1.block0.conv1.weight (64x32x3x3, not 64x64x3x3)" in problem


def test_foreign_problems_are_told_in_the_files_own_names(tmp_path):
    import torch

    state = foreign().ForeignResNet(18, 6).state_dict()
    del state["layer2.0.downsample.0.weight"], state["fc.bias"]
    state["layer3.1.conv2.weight"] = torch.zeros(256, 128, 3, 3)
    problem = problem_of(tmp_path, state)
    assert "missing 2: layer2.0.downsample.0.weight, fc.bias" in problem
    assert "layer3.1.conv2.weight (256x128x3x3, not 256x256x3x3)" in problem


def test_long_lists_of_keys_are_cut(tmp_path):
    state = create_model("resnet34", 10).state_dict()
    problem = problem_of(tmp_path, {k: v for k, v in state.items() if not k.startswith("stage3.block5")})
    assert "nearest is resnet34" in problem
    assert re.search(r"missing 10: stage3\.block5\.\S+, stage3\.block5\.\S+, stage3\.block5\.\S+, \.\.\.$", problem)


def test_a_backbone_without_its_head_is_refused(tmp_path):
    state = foreign().ForeignResNet(50, 6).state_dict()
    problem = problem_of(tmp_path, {k: v for k, v in state.items() if not k.startswith("fc.")})
    assert "resnet50" in problem
    assert "missing 2: fc.weight, fc.bias" in problem


def test_attention_in_odd_blocks_is_refused(tmp_path):
    state = create_model("eca_resnet34", 10).state_dict()
    del state["stage3.block2.attention.excitation.conv.weight"]
    assert "nearest is eca_resnet34: 197 of its 198 tensors match; missing 1: stage3.block2" in problem_of(tmp_path, state)


def test_impossible_numbers_of_scales_are_refused(tmp_path):
    import torch

    state = create_model("emca_eca_resnet18", 10).state_dict()
    state["stage3.block0.attention.aggregation.weight"] = torch.zeros(1, 1, 9)
    assert "stage3.block0.attention.aggregation.weight (1x1x9, not 1x1x3)" in problem_of(tmp_path, state)


def test_even_kernels_and_integer_weights_are_refused(tmp_path):
    import torch

    state = create_model("eca_resnet18", 10).state_dict()
    state["stage1.block0.attention.excitation.conv.weight"] = torch.zeros(1, 1, 4)
    assert "(1x1x4, not 1x1x3)" in problem_of(tmp_path, state)
    state = create_model("resnet18", 10).state_dict()
    state["head.weight"] = torch.zeros(10, 512, dtype=torch.int8)
    assert "head.weight (torch.int8, not 10x512)" in problem_of(tmp_path, state)


def test_other_networks_are_no_resnets(tmp_path):
    import torch

    state = {"blocks.0.attn.qkv.weight": torch.zeros(3, 3), "cls_token": torch.zeros(1)}
    assert "holds no ResNet; its keys are like blocks.0.attn.qkv.weight, cls_token" in problem_of(tmp_path, state)


def variant(**changes):
    import torch

    with torch.device("meta"):
        shapes = foreign().ForeignResNet(50, 6).state_dict()
    state = {key: torch.zeros(value.shape) for key, value in shapes.items() if "layer3" not in key and "layer4" not in key}
    for key, shape in changes.items():
        state[key.replace("__", ".")] = torch.zeros(shape)
    return state


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conv1__0__weight": (32, 3, 3, 3)}, "deep stem"),
        ({"conv1__weight": (64, 3, 3, 3)}, "3x3 stem"),
        ({"layer2__0__downsample__1__weight": (512, 256, 1, 1)}, "ResNet-D"),
        ({"layer2__0__downsample__0__weight": (512, 256, 3, 3)}, "3x3 shortcut"),
        ({"layer1__0__conv2__weight": (128, 4, 3, 3)}, "ResNeXt"),
        ({"layer1__0__conv2__weight": (128, 128, 3, 3)}, "another width, 128"),
    ],
)
def test_variants_of_resnet_are_named(tmp_path, changes, said):
    problem = problem_of(tmp_path, variant(**changes))
    assert "variant that is not supported" in problem
    assert said in problem


def test_public_name(tmp_path):
    path = saved(tmp_path, create_model("resnet18", 2).state_dict())
    assert emca_deploy.load_checkpoint(str(path))[1].num_classes == 2
