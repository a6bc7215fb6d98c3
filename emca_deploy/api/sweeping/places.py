"""Where the files that cells share are: in folders that are named by the digest of what each file depends on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emca_deploy.api.sweeping.keys import Keys, digest_of
from emca_deploy.api.sweeping.plan import Plan
from emca_deploy.backends.records import BACKENDS, DEFAULT
from emca_deploy.results.sweep import SweepCell

__all__ = ["Places"]


class Places:
    """The files of a plan's cells in the folder `place`, whether they exist or not."""

    def __init__(self, plan: Plan, keys: Keys, place: Path) -> None:
        self._plan, self._keys, self._place = plan, keys, place

    def exported(self, cell: SweepCell, precision: str) -> Path:
        """Return the ONNX file of a cell's model in "fp32" or "fp16"; an ONNX file of the plan as it is."""
        model = self._plan.models[cell.model]
        if model.kind == "onnx":
            assert model.path is not None  # the plan was checked
            return model.path
        return self._folder("export", self._keys.export(cell, precision)) / "model.onnx"

    def quantizes(self, cell: SweepCell) -> bool:
        """Return whether a cell's model is calibrated; an ONNX file in INT8 is not."""
        return cell.precision == "int8" and self._plan.models[cell.model].precision != "int8"

    def onnx(self, cell: SweepCell) -> Path:
        """Return the ONNX file that a cell runs or builds its engine from."""
        if self.quantizes(cell):
            return self._folder("int8", self._keys.model_file(cell)) / "model.onnx"
        return self.exported(cell, "fp16" if cell.precision == "fp16" else "fp32")

    def ranges(self, cell: SweepCell) -> Path:
        """Return the range table of a cell's model."""
        return self._folder("ranges", self._keys.ranges(cell)) / "ranges.json"

    def engine(self, cell: SweepCell) -> Path | None:
        """Return a cell's engine; None where its backend runs the ONNX file itself."""
        step = self._plan.step(cell)
        return None if step.file is None else self._folder("engine", self._keys.engine(cell)) / f"model{Path(step.file).suffix}"

    def validates(self, cell: SweepCell) -> bool:
        """Return whether the accuracy of a cell is measured; that of random weights is not."""
        return self._plan.validation is not None and self._plan.models[cell.model].kind in ("onnx", "checkpoint")

    def runs_engine(self, cell: SweepCell) -> bool:
        """Return whether the accuracy is that of the cell's engine: building one takes minutes, and its results are its own."""
        return BACKENDS[cell.backend].needs_gpu

    def accuracy(self, cell: SweepCell) -> Path:
        """Return the accuracy of a cell; all batches and threads share it."""
        batch = cell.batch if self.runs_engine(cell) else None
        return self._folder("accuracy", self._keys.accuracy(cell, batch)) / "accuracy.json"

    def logits(self, cell: SweepCell) -> Path | None:
        """Return the file of a cell's answers; None for a remote machine, whose answers are not kept.

        For the fp32 model on the reference's backend it is the file of the reference's answers, so that they are computed once.
        """
        if self._plan.places[cell.target].target.is_remote:
            return None
        is_reference = (cell.backend, cell.precision, self._plan.places[cell.target].target.kind) == (DEFAULT, "fp32", "cpu")
        reference = self.reference_logits(cell) if is_reference else None
        return reference or self.accuracy(cell).with_name("logits.npz")

    def reference_logits(self, cell: SweepCell) -> Path | None:
        """Return the file of the answers of a cell's fp32 model; None without one, or for a remote machine."""
        if self._plan.places[cell.target].target.is_remote or self._plan.models[cell.model].precision == "int8":
            return None
        return self._folder("logits", self._keys.reference(cell)) / "fp32.npz"

    def missing(self, cell: SweepCell) -> dict[Path, str]:
        """Return the files that a cell needs and that do not exist, with their kind: "export", "int8", "engine" or "accuracy"."""
        if self._plan.models[cell.model].is_fake:
            return {}
        needed = {self.exported(cell, "fp32"): "export", self.onnx(cell): "int8" if self.quantizes(cell) else "export"}
        if (engine := self.engine(cell)) is not None:
            needed[engine] = "engine"
        if self.validates(cell):
            needed[self.accuracy(cell)] = "accuracy"
        return {path: kind for path, kind in needed.items() if not path.is_file()}

    def files(self, cell: SweepCell) -> dict[str, str]:
        """Return a cell's existing files by role, those in the folder of the sweep relative to it."""
        if self._plan.models[cell.model].is_fake:
            return {}
        named: dict[str, Path | None] = {"model": self.onnx(cell)}
        if self.validates(cell):
            named |= {"logits": self.logits(cell), "reference_logits": self.reference_logits(cell)}
        return {role: self.within(path) for role, path in named.items() if path is not None and path.is_file()}

    def within(self, path: Path) -> str:
        """Return a path relative to the folder of the sweep, if it is in it."""
        root = self._place.parent
        return str(path.relative_to(root) if path.is_relative_to(root) else path)

    def _folder(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        return self._place / f"{kind}-{digest_of(inputs)}"
