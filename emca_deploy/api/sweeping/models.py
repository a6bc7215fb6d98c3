"""The models of a plan: checkpoints, architectures with random weights, and ONNX files."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emca_deploy.api.sweeping.plan_file import PlanFile
from emca_deploy.backends.registry import CHECKPOINTS, names_no_file
from emca_deploy.data.choosing import file_facts
from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.networks.registry import ARCHITECTURES, DETECTORS
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import parse_size, sides

__all__ = ["Model", "find_model"]

Kind = Literal["onnx", "checkpoint", "architecture", "fake"]


@dataclass(frozen=True)
class Model:
    """One model of a plan.

    Attributes:
        name: Name in the plan.
        path: Its file; None for an architecture.
        precision: Precision of an ONNX file; "fp32" for others.
        size: (height, width) that an ONNX file fixes, None for each that it leaves open.
    """

    name: str
    kind: Kind
    path: Path | None = None
    precision: str = "fp32"
    size: tuple[int | None, int | None] = (None, None)

    @property
    def is_fake(self) -> bool:
        """Whether it is an artifact without a file, for tests."""
        return self.kind == "fake"

    @property
    def backend(self) -> str:
        """The only backend of a fake."""
        return self.name.partition(":")[0]

    def misfit(self, precision: str, image_size: str | None) -> str:
        """Return why it has no form of a precision and image size, or ""."""
        wanted = None if image_size is None else parse_size(image_size)
        if wanted is not None and any(own not in (None, side) for own, side in zip(self.size, sides(wanted), strict=True)):
            return f"{self.name} takes images of {self.size[0]}x{self.size[1]} only"
        if self.kind != "onnx" or precision == self.precision:
            return ""
        if self.precision != "fp32":
            return f"{self.name} is a model in {self.precision}"
        return f"{self.name}: fp16 is made from a checkpoint, not from an ONNX file" if precision == "fp16" else ""


def find_model(file: PlanFile, name: str) -> Model:
    """Return what a name in `models` stands for.

    Raises:
        UnknownNameError: it is neither a file nor an architecture.
        InputError: the file has no known suffix, or does not exist.
        ModelError: the ONNX file cannot be read.
    """
    if names_no_file(name):
        return Model(name, "fake")
    path = file.place(name)
    suffix = path.suffix.lower()
    if path.is_file():
        if suffix == ".onnx":
            facts = file_facts(path)
            return Model(name, "onnx", path, OnnxFile.open(path).precision, (facts.height, facts.width))
        if suffix in CHECKPOINTS:
            return Model(name, "checkpoint", path)
        remedy = f"name an .onnx file, or a checkpoint: {', '.join(CHECKPOINTS)}"
        raise InputError(f"{file.path}: models: {name} is neither a checkpoint nor an ONNX file", remedy)
    every = ARCHITECTURES | DETECTORS
    if name in every:
        return Model(name, "architecture")
    if suffix in (".onnx", *CHECKPOINTS) or "/" in name:
        raise InputError(f"{file.path}: models: {path}: no such file", f"{_near(path)}paths are relative to the plan's folder")
    raise UnknownNameError.of(f"model ({file.path})", name, every, "name a file, or an architecture of `emca-deploy models`")


def _near(path: Path) -> str:
    """Return a hint with the most similar names in the folder of a missing file, or ""."""
    try:
        names = [other.name for other in path.parent.iterdir()]
    except (OSError, ValueError):  # a ValueError comes from a name that no file can have
        return ""
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    return f"nearest: {', '.join(near)}; " if near else ""
