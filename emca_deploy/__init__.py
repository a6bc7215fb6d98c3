"""emca-deploy: from a trained EMCA-ResNet to a measured, verified INT8 deployment.

Every operation is a function of this package, which takes a request and returns a report: see docs/reference/python.md.
Importing the package loads no torch, OpenVINO, TensorRT or ONNX Runtime; each is loaded when it is first used.
"""

import sys
from typing import TYPE_CHECKING, Any

from emca_deploy._moved import OldNames
from emca_deploy._version import __version__

if TYPE_CHECKING:
    from emca_deploy.api.build import BuildReport, build
    from emca_deploy.api.bundle import BundleRequest, bundle, inspect_bundle
    from emca_deploy.api.calibrate import CalibrateReport, CalibrateRequest, calibrate
    from emca_deploy.api.compare import compare
    from emca_deploy.api.demo import demo
    from emca_deploy.api.deploy import DeployRequest, deploy
    from emca_deploy.api.devices import add_device, check_devices, devices, remove_device
    from emca_deploy.api.doctor import DoctorReport, doctor
    from emca_deploy.api.export import ExportReport, ExportRequest, export
    from emca_deploy.api.gate import GateRequest, gate
    from emca_deploy.api.history import add_history, history
    from emca_deploy.api.images import read_preprocessing
    from emca_deploy.api.lay_out import lay_out
    from emca_deploy.api.layers import LayersRequest, layers
    from emca_deploy.api.load_bundle import Classified, LoadedBundle, load_bundle
    from emca_deploy.api.models import ModelsReport, models
    from emca_deploy.api.plan import PlanReport, plan
    from emca_deploy.api.profile import profile
    from emca_deploy.api.report import report
    from emca_deploy.api.sensitivity import Sensitivity, SensitivityRequest, sensitivity
    from emca_deploy.api.sweep import SweepRequest, sweep
    from emca_deploy.api.tune import tune
    from emca_deploy.api.validate import ValidateReport, ValidateRequest, validate
    from emca_deploy.networks.checkpoints import load_checkpoint
    from emca_deploy.networks.registry import create_model
    from emca_deploy.preprocessing import Labelling, Preprocessing, PreprocessingOptions
    from emca_deploy.requests import BuildRequest, ProfileRequest, TrtChoices, TuneRequest
    from emca_deploy.results.codec import to_json

__all__ = [
    "BuildReport",
    "BuildRequest",
    "BundleRequest",
    "CalibrateReport",
    "CalibrateRequest",
    "Classified",
    "DeployRequest",
    "DoctorReport",
    "ExportReport",
    "ExportRequest",
    "GateRequest",
    "Labelling",
    "LayersRequest",
    "LoadedBundle",
    "ModelsReport",
    "PlanReport",
    "Preprocessing",
    "PreprocessingOptions",
    "ProfileRequest",
    "Sensitivity",
    "SensitivityRequest",
    "SweepRequest",
    "TrtChoices",
    "TuneRequest",
    "ValidateReport",
    "ValidateRequest",
    "__version__",
    "add_device",
    "add_history",
    "build",
    "bundle",
    "calibrate",
    "check_devices",
    "compare",
    "create_model",
    "demo",
    "deploy",
    "devices",
    "doctor",
    "export",
    "gate",
    "history",
    "inspect_bundle",
    "lay_out",
    "layers",
    "load_bundle",
    "load_checkpoint",
    "models",
    "plan",
    "profile",
    "read_preprocessing",
    "remove_device",
    "report",
    "sensitivity",
    "sweep",
    "to_json",
    "tune",
    "validate",
]

_PLACES = {
    "api.build": ("BuildReport", "build"),
    "api.bundle": ("BundleRequest", "bundle", "inspect_bundle"),
    "api.calibrate": ("CalibrateReport", "CalibrateRequest", "calibrate"),
    "api.compare": ("compare",),
    "api.demo": ("demo",),
    "api.deploy": ("DeployRequest", "deploy"),
    "api.devices": ("add_device", "check_devices", "devices", "remove_device"),
    "api.doctor": ("DoctorReport", "doctor"),
    "api.export": ("ExportReport", "ExportRequest", "export"),
    "api.gate": ("GateRequest", "gate"),
    "api.history": ("add_history", "history"),
    "api.images": ("read_preprocessing",),
    "api.layers": ("LayersRequest", "layers"),
    "api.lay_out": ("lay_out",),
    "api.load_bundle": ("Classified", "LoadedBundle", "load_bundle"),
    "api.models": ("ModelsReport", "models"),
    "api.plan": ("PlanReport", "plan"),
    "api.profile": ("profile",),
    "api.report": ("report",),
    "api.sensitivity": ("Sensitivity", "SensitivityRequest", "sensitivity"),
    "api.sweep": ("SweepRequest", "sweep"),
    "api.tune": ("tune",),
    "api.validate": ("ValidateReport", "ValidateRequest", "validate"),
    "networks.checkpoints": ("load_checkpoint",),
    "networks.registry": ("create_model",),
    "preprocessing": ("Labelling", "Preprocessing", "PreprocessingOptions"),
    "requests": ("BuildRequest", "ProfileRequest", "TrtChoices", "TuneRequest"),
    "results.codec": ("to_json",),
}
"""The modules of the public names; each is imported on the first access to one of its names."""

sys.meta_path.insert(0, OldNames())


def __getattr__(name: str) -> Any:
    """Import a public name on its first access."""
    from importlib import import_module

    for place, names in _PLACES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"emca_deploy.{place}"), name)
            return value
    raise AttributeError(f"module 'emca_deploy' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
