"""Which operators only clip what the integers after them clip."""

import numpy as np
import onnx_ir as ir
import pytest

from emca_deploy.calibration.placement.place import _only_cuts


@pytest.mark.parametrize(
    ("kind", "bounds", "cuts"),
    [
        ("Relu", (), True),
        ("Sigmoid", (), False),
        ("Conv", (), False),
        ("Clip", (0.0, 6.0), True),
        ("Clip", (-1.0, 1.0), True),
        ("Clip", (0.5, 6.0), False),
        ("Clip", (-6.0, -0.5), False),
        ("Clip", (0.0,), False),
    ],
)
def test_a_relu_and_a_clip_around_0_cut(kind: str, bounds: tuple[float, ...], cuts: bool) -> None:
    constants = [ir.Value(name=f"bound{i}", const_value=ir.tensor(np.array(x, np.float32))) for i, x in enumerate(bounds)]
    assert _only_cuts(ir.node(kind, [ir.Value(name="x"), *constants])) is cuts
