"""The evaluation of each task."""

from emca_deploy.harness.accuracy.annotated import AnnotatedImages
from emca_deploy.harness.accuracy.classified import ClassifiedImages
from emca_deploy.harness.accuracy.evaluation import Evaluation
from emca_deploy.requests import TaskName

__all__ = ["EVALUATIONS"]

EVALUATIONS: dict[TaskName, type[Evaluation]] = {"classification": ClassifiedImages, "detection": AnnotatedImages}
