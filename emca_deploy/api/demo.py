"""`demo`: `deploy` on the bundled checkpoint and labelled images."""

from pathlib import Path

from emca_deploy._progress import Stage, silent
from emca_deploy.api.deploy import DeployRequest, deploy
from emca_deploy.data import bundled
from emca_deploy.results.deploy import DeployReport

__all__ = ["demo"]


def demo(
    output: Path | str = "demo",
    *,
    threads: int | None = None,
    duration_s: float = 5.0,
    limit: int | None = None,
    stage: Stage = silent,
) -> DeployReport:
    """Deploy the bundled EMCA-ECA-ResNet-18, trained on Fashion-MNIST.

    Args:
        output: a folder for everything that is made.
        threads: for every runtime; None uses all cores.
        duration_s: measuring time for each candidate.
        limit: validate on this many of the 2,000 images; None uses all.
        stage: opens each stage, for progress.

    Raises:
        EmcaError: as `deploy`.
    """
    request = DeployRequest(
        bundled.bundled_checkpoint(),
        bundled.bundled_calibration_images(),
        bundled.bundled_test_images(),
        Path(output),
        preprocessing=bundled.BUNDLED_PREPROCESSING,
        threads=threads,
        duration_s=duration_s,
        limit=limit,
    )
    return deploy(request, stage)
