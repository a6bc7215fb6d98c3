"""The tasks by name."""

from emca_deploy.requests import TaskName
from emca_deploy.tasks.classification import Classification
from emca_deploy.tasks.detection import Detection
from emca_deploy.tasks.task import Task

__all__ = ["TASKS"]

TASKS: dict[TaskName, Task] = {task.name: task for task in (Classification(), Detection())}
