"""A network that branches at run time can be calibrated: outer values that its branches read are kept."""

import numpy as np
import pytest

from zoo.networks import NETWORKS, to_onnx
from zoo.quantizing import Member
from zoo.rewrites import REWRITES, a_branch_left


@pytest.mark.parametrize("network", ["residual", "mobile"])
def test_all_layers_but_those_behind_the_branch_are_quantized_and_corrected(tmp_path, network):
    plain = to_onnx(NETWORKS[network])
    models = {"plain": plain, "branched": a_branch_left(plain, np.random.default_rng(0))}
    made = {}
    for name, model in models.items():
        made[name] = Member(model, REWRITES["nothing"], tmp_path / name).quantize("openvino", recover="bias", method="minmax")
    layers = {name: sum(one.layers.values()) for name, one in made.items()}
    assert layers["plain"] - 1 <= layers["branched"] <= layers["plain"]
    assert made["branched"].sqnr_db > made["plain"].sqnr_db - 0.5
