"""--weights and --prefix, and the messages about where the network is in a checkpoint."""

import pytest

from emca_deploy.backends.base import RunOptions
from emca_deploy.commands._checkpoint_options import print_source
from emca_deploy.results.codec import to_json


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A checkpoint with weights, their average, a loss, an optimizer and an object; each tensor repeats one number."""
    import argparse

    import torch

    from emca_deploy.networks.registry import create_model

    with torch.device("meta"):
        shapes = create_model("resnet18", 5).state_dict()

    def state(value):
        return {
            name: torch.tensor(value).expand(each.shape) if each.is_floating_point() else torch.tensor(1)
            for name, each in shapes.items()
        }

    path = tmp_path_factory.mktemp("both") / "last.ckpt"
    plain = {f"model.{name}": tensor for name, tensor in state(0.25).items()} | {"criterion.weight": torch.ones(5)}
    momentum = {"state": {number: {"momentum_buffer": torch.ones(2)} for number in range(9)}}
    torch.save(
        {"state_dict": plain, "state_dict_ema": state(0.5), "optimizer": momentum, "args": argparse.Namespace(lr=0.1)}, path
    )
    return path


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("plain", ["'state_dict'", "'model.'", "--weights ema", "criterion.weight", "optimizer.* (9)", "argparse.Namespace"]),
        (None, ["'state_dict_ema'", "--weights plain", "state_dict.* (123)", "optimizer.* (9)", "argparse.Namespace"]),
    ],
)
def test_what_was_found_where_is_said(both, weights, said, capsys):
    from emca_deploy.networks.checkpoints import load_checkpoint

    source = load_checkpoint(both, weights=weights)[1].source
    print_source(to_json(source))
    out, err = capsys.readouterr()
    assert err == ""
    assert [words for words in said if words not in out] == []
    print_source(to_json(source))
    assert capsys.readouterr().out == out


def test_a_bare_state_dict_needs_no_words(plain_checkpoint, capsys):
    from emca_deploy.networks.checkpoints import load_checkpoint

    print_source(to_json(load_checkpoint(plain_checkpoint)[1].source))
    assert capsys.readouterr().out == ""


def test_a_choice_that_is_not_there_is_refused(plain_checkpoint, tmp_path, refused, files):
    assert "--weights plain" in refused("export", plain_checkpoint, "--weights", "ema", "-o", tmp_path / "x.onnx")
    assert "--prefix" in refused("export", plain_checkpoint, "--prefix", "net", "-o", tmp_path / "x.onnx")
    assert files(tmp_path) == set()


@pytest.mark.parametrize(("options", "weights"), [({}, "ema"), ({"weights": "plain"}, "plain")])
def test_a_checkpoint_that_is_run_says_which_weights_run(both, options, weights):
    from emca_deploy.backends.torch.cpu import TorchRunner

    with TorchRunner(str(both), RunOptions(), **options) as runner:
        assert runner.describe()["weights"] == weights
        assert float(runner._module.head.weight.detach()[0, 0]) == {"ema": 0.5, "plain": 0.25}[weights]


def test_facts_about_a_detector_are_said(tmp_path, capsys):
    from emca_deploy.networks.checkpoints import load_checkpoint
    from zoo.checkpoints import saved
    from zoo.detector_files import CONFIG, numbered, shapes_of

    text = CONFIG.replace("nms_pre=900", "nms_pre=most()")
    state = numbered(shapes_of("mmdetection-3", "mask_rcnn"))
    print_source(to_json(load_checkpoint(saved(tmp_path, {"state_dict": state, "meta": {"config": text}}))[1].source))
    assert "model.test_cfg.rpn.nms_pre = most()" in capsys.readouterr().out
    print_source(to_json(load_checkpoint(saved(tmp_path, {"module": state}))[1].source))
    out = capsys.readouterr().out
    assert "assumed" in out
    assert "head" not in out
