"""The only place that joins the rooms: the whole walk, checkpoint to report, and calibration with an accuracy gate."""

from emca_deploy.pipeline.places import CPU_BACKENDS
from emca_deploy.pipeline.search import AccuracyGate, calibrate_within
from emca_deploy.pipeline.walk import DeployOptions, deploy

__all__ = ["CPU_BACKENDS", "AccuracyGate", "DeployOptions", "calibrate_within", "deploy"]
