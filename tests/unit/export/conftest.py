"""Every family, exported once."""

import pytest
import torch

from emca_deploy.export.exporter import ExportRequest, export_onnx
from emca_deploy.models.registry import create_model

SIZE = 40  # two by two at the last stage: nothing there is a single pixel by chance
FAMILIES = [f"{family}resnet18" for family in ("", "se_", "eca_", "srm_", "emca_se_", "emca_eca_", "emca_srm_", "pkcam_eca_")]


@pytest.fixture(scope="session", params=FAMILIES)
def exported(request, once):
    """The name, the torch module with batch norms that do something, and the exported file of one family."""
    import onnx_ir as ir

    torch.manual_seed(0)
    module = create_model(request.param, num_classes=5).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    made = once(
        f"{request.param}-{SIZE}", lambda folder: ir.save(export_onnx(module, ExportRequest(SIZE)), folder / "model.onnx")
    )
    return request.param, module, made / "model.onnx"
