"""`demo`: `deploy` on a sample network and its images."""

from dataclasses import replace
from pathlib import Path

from emca_deploy._progress import Stage, silent
from emca_deploy.api.deploy import DeployRequest, deploy
from emca_deploy.data import bundled
from emca_deploy.errors import InputError
from emca_deploy.requests import TaskName
from emca_deploy.results.deploy import DeployReport

__all__ = ["demo"]

DETECTION_SAMPLES = 24
"""Number of calibration scenes, a quarter of the sample's: with all of them most of the time is spent on calibration."""


def demo(
    output: Path | str = "demo",
    *,
    task: TaskName = "classification",
    data: Path | None = None,
    threads: int | None = None,
    duration_s: float = 5.0,
    limit: int | None = None,
    stage: Stage = silent,
) -> DeployReport:
    """Deploy the bundled EMCA-ECA-ResNet-18, trained on Fashion-MNIST, or a Mask R-CNN with that backbone.

    Args:
        output: folder for everything that is made.
        task: "classification", or "detection" for the Mask R-CNN.
        data: folder with the sample for detection; None is examples/data of this clone of the repository.
        threads: threads of each runtime; None is one per physical core.
        duration_s: measuring time of each candidate in seconds.
        limit: number of the 2,000 images, or 200 scenes, to validate on; None uses all.
        stage: callback that opens each stage, for progress.

    Raises:
        InputError: the sample for detection is missing, or `data` is given for classification.
        EmcaError: a stage of `deploy` failed.
    """
    request = _detection(Path(output), data) if task == "detection" else _classification(Path(output), data)
    return deploy(replace(request, threads=threads, duration_s=duration_s, limit=limit), stage)


def _classification(output: Path, data: Path | None) -> DeployRequest:
    if data is not None:
        raise InputError("--data: the sample for classification is in the package", "leave --data out, or add --task detection")
    return DeployRequest(
        bundled.bundled_checkpoint(),
        bundled.bundled_calibration_images(),
        bundled.bundled_test_images(),
        output,
        preprocessing=bundled.BUNDLED_PREPROCESSING,
    )


def _detection(output: Path, data: Path | None) -> DeployRequest:
    sample = bundled.detection_sample(data)
    return DeployRequest(
        sample.checkpoint,
        sample.calibration,
        sample.test,
        output,
        preprocessing=bundled.DETECTION_PREPROCESSING,
        annotations=sample.annotations,
        samples=DETECTION_SAMPLES,
    )
