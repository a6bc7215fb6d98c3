"""Attention over several maps is exported on stacks of statistics, and separated again for calibration and a DLA."""

import numpy as np
import onnx_ir as ir
import pytest
from small import small_networks

from emca_deploy.calibration.graphs.attention_path import find_attention
from emca_deploy.canonical.unstacking import unstack_scales
from emca_deploy.exporting.parity import measure_parity, run_onnx

SIZE = 64
IMAGES = np.random.default_rng(0).standard_normal((3, 3, SIZE, SIZE)).astype(np.float32)

MORE_NODES = {
    ("emca_eca", 18): 42, ("emca_eca", 34): 49, ("emca_eca", 50): 49,
    ("emca_se", 18): 45, ("emca_se", 34): 52, ("emca_se", 50): 52,
    ("emca_srm", 18): 70, ("emca_srm", 34): 84, ("emca_srm", 50): 84,
}  # fmt: skip
PLAIN_NODES = {18: 49, 34: 89, 50: 122}


def lively(arch, **options):
    """Return a network of a quarter of the width whose gates depend on every statistic."""
    import torch

    from emca_deploy.networks.registry import create_model

    torch.manual_seed(0)
    with small_networks():
        module = create_model(arch, 10, **options).eval()
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if key.endswith("cfc"):
                value.normal_(0, 0.5)
            elif "aggregation" in key:
                value.normal_(0.3, 0.3)
            elif "bn" in key and key.endswith("bias"):
                value.normal_(0, 0.5)
    return module


def exact_logits(module, images):
    """Return the module's logits in double precision."""
    import torch

    with torch.no_grad():
        return module.double()(torch.from_numpy(images).double()).numpy()


def runs(model, images):
    return run_onnx(ir.to_proto(model).SerializeToString(), images)[0]


@pytest.mark.parametrize("depth", [18, pytest.param(34, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", ["emca_eca", "emca_se", "emca_srm"])
def test_attention_takes_this_many_nodes(family, depth):
    from emca_deploy.exporting.exporter import export_onnx
    from emca_deploy.networks.registry import create_model

    with small_networks():
        module = create_model(f"{family}_resnet{depth}", 10)
    model = export_onnx(module, SIZE)
    assert len(list(model.graph)) - PLAIN_NODES[depth] == MORE_NODES[family, depth]


@pytest.mark.parametrize("options", [{}, {"previous_stages": "all"}, {"blocks_per_stage": 1}])
@pytest.mark.parametrize("family", ["emca_eca", "emca_se", "emca_srm"])
def test_stacked_and_separate_statistics_give_the_same_logits(family, options):
    from emca_deploy.exporting.exporter import export_onnx

    module = lively(f"{family}_resnet18", **options)
    stacked = export_onnx(module, SIZE)
    images = np.concatenate([IMAGES, np.zeros_like(IMAGES[:1])])  # maps of a blank image have nearly no variance
    found = runs(stacked, images)
    assert len(find_attention(stacked.graph).gates) == 4
    assert unstack_scales(stacked)
    separate = runs(stacked, images)
    expected = exact_logits(module, images)
    assert measure_parity(expected, found).max_rel < 3e-6
    assert measure_parity(expected, separate).max_rel < 3e-6
    assert len(find_attention(stacked.graph).gates) == 4
    assert not {node.op_type for node in stacked.graph} & {"ReduceL2", "Clip"}
    assert not unstack_scales(stacked)


def test_separate_statistics_are_left_as_they_are(monkeypatch):
    """Files exported before have separate statistics."""
    from emca_deploy.canonical import stacking
    from emca_deploy.exporting.exporter import export_onnx

    module = lively("emca_srm_resnet18")
    monkeypatch.setattr(stacking, "stack_scales", lambda model: 0)
    separate = export_onnx(module, SIZE)
    names = [node.name for node in separate.graph]
    assert len(names) - PLAIN_NODES[18] == 113
    assert not unstack_scales(separate)
    assert [node.name for node in separate.graph] == names


def test_a_stack_with_other_weights_stays():
    """A convolution that is no sum of repeated descriptors is another network's."""
    from emca_deploy.exporting.exporter import export_onnx

    model = export_onnx(lively("emca_eca_resnet18"), SIZE)
    for node in model.graph:
        if str(node.name).endswith("aggregation.mix"):
            weight = node.inputs[1].const_value.numpy().copy()
            weight[0, 1] += 1
            node.inputs[1].const_value = ir.tensor(weight)
    assert not unstack_scales(model)
