"""What `deploy` checks and chooses for a detector before the export."""

from pathlib import Path
from typing import Any

import pytest
from refusals import refusing

from emca_deploy.api.deploy import DeployRequest, _Walk
from emca_deploy.errors import CheckpointError, InputError
from emca_deploy.networks.checkpoints import ModelSpec
from emca_deploy.targets.base import Part
from emca_deploy.targets.cpu import CpuTarget
from emca_deploy.targets.deployment import BuildStep, Deployment
from emca_deploy.tasks.detector_config import DetectorConfig

FILE = Path("model.pth")


def walk(*backends: str, **options: Any) -> _Walk:
    steps = [BuildStep(name, name, "fp32") for name in backends]
    deployment = Deployment("gpu", backends, (BuildStep("PyTorch", "torch", None), *steps)).without_checkpoints()
    request = DeployRequest(FILE, Path("data"), Path("val"), Path("out"), annotations=Path("a.json"), **options)
    unused: Any = None
    return _Walk(request, (Part(CpuTarget(), deployment),), unused, unused, unused, unused)


def spec(arch: str = "mask_rcnn_eca_resnet18_fpn", samples: int = 2) -> ModelSpec:
    return ModelSpec(arch, 3, {}, "", 0, detector=DetectorConfig(3, roi_sampling_ratio=samples))


def test_checkpoints_are_not_run_and_regions_are_cropped_on_a_grid_for_tensorrt_rtx_only():
    found = walk("tensorrt-rtx", "onnxruntime")
    assert found.parts[0].deployment.backends == ("tensorrt-rtx", "onnxruntime")
    assert [found._builds_with(name) for name in ("tensorrt-rtx", "torch", "openvino")] == [True, False, False]
    found._check_task(spec())
    found._check_task(spec("retinanet_eca_resnet18_fpn", samples=0))
    walk("tensorrt")._check_task(spec(samples=0))


@pytest.mark.parametrize(
    ("backends", "options", "samples", "kind"),
    [(("tensorrt-rtx",), {}, 0, InputError), (("openvino",), {"recover": "finetune"}, 2, CheckpointError)],
)
def test_what_no_backend_or_recovery_can_do_is_refused_before_the_export(backends, options, samples, kind):
    with refusing(kind, FILE):
        walk(*backends, **options)._check_task(spec(samples=samples))
