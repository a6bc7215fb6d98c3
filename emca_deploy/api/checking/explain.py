"""`validate --explain`: the change from a reference to an artifact, split over the stages that cause it."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emca_deploy._machine import default_threads
from emca_deploy._progress import Counter, Stage
from emca_deploy.api.export import ExportRequest, export
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import read_manifest
from emca_deploy.atomic import hidden_folder
from emca_deploy.backends.registry import CHECKPOINTS
from emca_deploy.calibration.graphs.graph import canonical_graph
from emca_deploy.calibration.graphs.graph_session import few_of
from emca_deploy.calibration.ledger.finished import Finished, check_form
from emca_deploy.calibration.ledger.ledger import Ledger, Watched
from emca_deploy.data.sources import ImageSource, open_source
from emca_deploy.errors import InputError
from emca_deploy.harness.accuracy.classified import ClassifiedImages
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.harness.accuracy.evaluation import Evaluation, Measured
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.ledger import DropLedger

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Explaining"]

IMAGES = 500
"""Most images that a ledger is made of; each runs through up to nine forms of the network."""


@dataclass(frozen=True)
class Explaining:
    """The files of a ledger.

    Attributes:
        artifact: .onnx file of the artifact.
        reference: .onnx file or checkpoint of the reference.
        output_name: output with the logits, if the model has several.
        threads: threads of ONNX Runtime; None is one per physical core.
    """

    artifact: Path
    reference: Path
    output_name: str | None
    threads: int | None

    def check(self) -> None:
        """Refuse models that cannot be taken apart.

        Raises:
            InputError: the artifact is no float or Q/DQ model in ONNX, or the reference is an engine.
        """
        check_form(self.artifact)
        suffix = self.reference.suffix.lower()
        if suffix != ".onnx" and suffix not in CHECKPOINTS:
            problem = f"{self.reference}: --explain takes the graph of the reference apart"
            raise InputError(problem, "name the fp32 .onnx file or the checkpoint with --reference")

    def measure(
        self, measured: Measured, images: Evaluation, run: Callable[[Path, Path], LogitsResult], stage: Stage
    ) -> DropLedger:
        """Return the ledger on at most `IMAGES` images of a measurement, spread over it.

        `run` returns the answers of another model, a file, for a data set, an .npz file, on the artifact's own backend.

        Raises:
            ModelError: a graph is damaged, or ONNX Runtime cannot run it.
            DataError: an image cannot be read.
        """
        assert isinstance(images, ClassifiedImages)
        assert measured.reference is not None
        own, reference = images.settled(measured), measured.reference
        rows = few_of(range(len(own.logits)), IMAGES)
        indices = [own.indices(len(images.source))[row] for row in rows]
        labels = None if own.labels is None else own.labels[rows]
        ends = reference.logits[rows], own.logits[rows]
        with hidden_folder(Path(tempfile.gettempdir())) as folder:
            ledger = self._opened(measured, images, folder)
            with stage("explaining the change") as progress:
                ledger = ledger.with_foreign_biases(indices)
                found = ledger.measure(indices, ends, labels, Counter(progress, len(indices)))
            watched = _watched(run, ledger.of_artifact, folder)
            with stage("looking for layers") as progress:
                return ledger.locate(found, indices, watched, Counter(progress, len(found.stages)))

    def _opened(self, measured: Measured, images: Evaluation, folder: Path) -> Ledger:
        assert measured.reference is not None
        used, of_reference = measured.own.preprocessing, measured.reference.preprocessing
        manifest = read_manifest(self.artifact, verify=False)
        network = manifest.network if manifest is not None and "in_graph" in manifest.details else None
        if (used.height, used.width) != (of_reference.height, of_reference.width):
            problem = f"{self.artifact} and {self.reference}: have inputs of different sizes, which --explain cannot tell apart"
            raise InputError(problem, "name a --reference of the same input size")
        file = self._reference_file(of_reference, folder)
        canonical = canonical_graph(file, of_reference, self.output_name)
        finished = Finished.open(self.artifact, canonical.model.graph, self.output_name)
        ends = (OnnxFile.open(path).find_logits(self.output_name) for path in (file, self.artifact))

        def source(preprocessing: Preprocessing) -> ImageSource:
            own = images.source
            if own.finished or preprocessing == own.preprocessing:
                return own
            return open_source(images.wishes.data, preprocessing, images.wishes.labelling)

        of_artifact = source(used)
        return Ledger(
            canonical.model,
            finished,
            source(of_reference),
            of_artifact if network is None else source(network),
            of_artifact,
            self.threads or default_threads(),
            any(end.softmax for end in ends),
        )

    def _reference_file(self, used: Preprocessing, folder: Path) -> Path:
        """Return the reference's .onnx file; a checkpoint is exported."""
        if self.reference.suffix.lower() == ".onnx":
            return self.reference
        path = folder / "reference.onnx"
        export(ExportRequest(checkpoint=self.reference, output=path, preprocessing=used))
        return path


def _watched(run: Callable[[Path, Path], LogitsResult], source: ImageSource, folder: Path) -> Watched:
    """Return what runs a graph on the artifact's own backend."""

    def watched(model: "ir.Model", indices: Sequence[int]) -> Float32Array:
        import onnx_ir as ir

        path, data = folder / "watched.onnx", folder / "images.npz"
        ir.save(model, path)
        inputs = np.concatenate([batch for batch, _ in source.batches(len(indices), indices)])
        np.savez(data, images=inputs)
        return run(path, data).logits

    return watched
