"""Adds to a finished ONNX file what programs that read its output want: probabilities, and the names of classes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from emca_deploy.artifacts import Manifest, read_manifest, sha256_file, this_command, write_artifact
from emca_deploy.data.label_files import names_in_order
from emca_deploy.errors import InputError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.refusal import graph_errors

__all__ = ["CLASSES_KEY", "ModelOutput", "complete_output"]

CLASSES_KEY = "classes"
"""Key of the class names in the file's metadata: a JSON list in the order of the outputs."""

PROBABILITIES = "probabilities"


@dataclass(frozen=True)
class ModelOutput:
    """What was added to a file.

    Attributes:
        softmax: whether the output holds probabilities.
        classes: number of class names in the metadata; 0 for none.
    """

    onnx: Path
    softmax: bool
    classes: int

    def record(self) -> dict[str, Any]:
        """Return what the JSON document and the manifest both have of it."""
        return {"softmax": self.softmax, "classes": self.classes}


def complete_output(model: Path, output: Path, *, softmax: bool, names: Mapping[str, int] | None) -> ModelOutput:
    """Write a classifier with a Softmax behind its logits or with class names in its metadata, and its manifest.

    `names` has the output of each class by name; an output with several names keeps the first.

    Raises:
        ModelError: the model cannot be read, or is no classifier.
        InputError: names do not fit the outputs, it ends in a Softmax already, or `output` is `model`.
        OutputError: `output` cannot be written.
    """
    if output.exists() and model.exists() and output.samefile(model):
        raise InputError(f"{output}: is the model itself", "name another output with -o")
    file = OnnxFile.open(model)
    logits = file.find_logits()
    classes = None if names is None else names_in_order(names, logits.classes, f"--labels-in-model: {model}")
    if softmax and logits.softmax:
        raise InputError(f"--softmax: {model} ends in a Softmax already", "leave --softmax out")
    with write_artifact(output) as draft:
        with graph_errors(model):
            loaded = file.load()
            if softmax:
                _add_softmax(loaded.graph, logits.name)
            if classes is not None:
                loaded.metadata_props[CLASSES_KEY] = json.dumps(classes, ensure_ascii=False)
            ir.save(loaded, draft.path)
        made = ModelOutput(output, softmax, len(classes or ()))
        source = read_manifest(model, verify=False) or Manifest(kind="onnx", sha256="", precision=file.precision)
        draft.manifest = replace(
            source,
            inputs={**source.inputs, "model": sha256_file(model)},
            command=this_command(),
            details={**source.details, "output": made.record()},
            settings=(),
        )
    return made


def _add_softmax(graph: ir.Graph, name: str) -> None:
    """Put a Softmax over the classes behind an output, whose place the probabilities take."""
    place = next(index for index, value in enumerate(graph.outputs) if value.name == name)
    logits = graph.outputs[place]
    node = ir.node("Softmax", [logits], {"axis": 1}, name=PROBABILITIES)
    result = node.outputs[0]
    result.name, result.shape, result.type = PROBABILITIES, logits.shape, logits.type
    graph.append(node)
    graph.outputs[place] = result
