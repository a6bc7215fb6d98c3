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
        output: folder for everything that is made.
        threads: threads of each runtime; None is one per physical core.
        duration_s: measuring time of each candidate in seconds.
        limit: number of the 2,000 images to validate on; None uses all.
        stage: callback that opens each stage, for progress.

    Raises:
        EmcaError: a stage of `deploy` failed.
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
