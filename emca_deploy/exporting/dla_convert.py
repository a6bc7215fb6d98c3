"""Rewrites an ONNX file for a DLA, and compares the result with the original."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy._optional import installed_version
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import Manifest, Preprocessing, read_manifest, sha256_file, this_command, write_artifact
from emca_deploy.errors import InputError, ModelError
from emca_deploy.exporting.dla_forms import DlaForms, to_dla
from emca_deploy.exporting.dla_rules import LARGEST_BATCH
from emca_deploy.exporting.parity import MAX_RELATIVE_ERROR, Parity, gated_parity, parity_images, real_images, run_onnx
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.refusal import graph_errors
from emca_deploy.results.codec import to_json
from emca_deploy.tasks.outputs import SCORES

__all__ = ["DlaConversion", "convert_for_dla", "load_float_model"]

RANDOM_IMAGES = 4
RECORDED_VERSIONS = ("onnx_ir", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class DlaConversion:
    """The result of a conversion.

    Attributes:
        source: File it was made from.
        forms: Number of rewrites, and the nodes that no DLA runs.
        parity: Parity of the file with its source.
    """

    onnx: Path
    source: Path
    forms: DlaForms
    parity: Parity

    @property
    def grown_mib(self) -> float:
        """Growth of the constants in MiB, as float32."""
        return (self.forms.weights_after - self.forms.weights_before) * 4 / 2**20

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `export --form dla` of an ONNX file."""
        return {
            "schema_version": 1,
            "onnx": str(self.onnx),
            "source": str(self.source),
            "form": "dla",
            "parity": to_json(self.parity),
            "dla": {**to_json(self.forms), "grown_mib": self.grown_mib},
        }


def convert_for_dla(model: Path, output: Path) -> DlaConversion:
    """Write a float32 ONNX model in forms that a DLA runs, with a manifest, after comparing it with the original.

    Raises:
        ModelError: the model cannot be read, is quantized or fp16, is a whole detector, or ONNX Runtime does not run it.
        InputError: its batch is larger than a DLA takes, or `output` is `model`.
        GateError: an output differs by more than float rounding; no file is left.
        OutputError: `output` cannot be written.
    """
    if output.exists() and model.exists() and output.samefile(model):
        raise InputError(f"{output}: is the model itself", "name another output with -o")
    source = read_manifest(model)
    if any(value.name == SCORES for value in OnnxFile.open(model).graph.output):
        raise ModelError(f"{model}: is a whole detector, and no DLA selects boxes", "export it with --part dense first")
    loaded = load_float_model(model)
    shape = _input_shape(model, loaded.graph)
    images = _images(shape, source.preprocessing if source else None)
    with write_artifact(output) as draft:
        expected = run_onnx(model, images)
        forms = to_dla(loaded)
        ir.save(loaded, draft.path)
        remedy = "use the model as it is; if its weights are sound, report where it came from"
        problem, found = "the rewrite for a DLA changes the outputs", run_onnx(draft.path, images)
        parities = [
            gated_parity(_flat(one), _flat(other), MAX_RELATIVE_ERROR, problem, remedy)
            for one, other in zip(expected, found, strict=True)
        ]
        parity = max(parities, key=lambda one: one.max_rel)
        result = DlaConversion(output, model, forms, parity)
        draft.manifest = _manifest(source, result)
    return result


def _flat(output: Float32Array) -> Float32Array:
    return output.reshape(len(output), -1)


def load_float_model(path: Path) -> ir.Model:
    """Load a float32 ONNX model with the shapes of its tensors, which are inferred where the file does not have them.

    Raises:
        ModelError: the file cannot be read, is not ONNX, or is quantized or fp16.
    """
    import onnx

    proto = OnnxFile.open(path).load_proto()
    with graph_errors(path):
        model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if not len(model.graph):
        raise ModelError(f"{path}: is not an ONNX file, or has no graph", "export or copy the model again")
    if any(node.op_type in {"QuantizeLinear", "DequantizeLinear"} for node in model.graph):
        raise ModelError(
            f"{path}: has Q/DQ nodes, which a DLA does not take", "name the fp32 model: a DLA reads a calibration cache"
        )
    if any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values()):
        raise ModelError(f"{path}: is fp16", "name the fp32 model: TensorRT itself makes it fp16 for a DLA")
    return model


def _input_shape(path: Path, graph: ir.Graph) -> list[int]:
    """Return (N, C, H, W) of the one input; 1 for a dynamic batch."""
    inputs = [value for value in graph.inputs if not value.is_initializer()]
    sides = list(inputs[0].shape) if len(inputs) == 1 and inputs[0].shape is not None else []
    sizes = [side for side in sides[1:] if isinstance(side, int)]
    if len(sides) != 4 or len(sizes) != 3:
        raise ModelError(f"{path}: does not have exactly one input (N, C, H, W) of a fixed size", "use an image classifier")
    batch = sides[0] if isinstance(sides[0], int) else 1
    if batch > LARGEST_BATCH:
        raise InputError(
            f"{path}: has a batch of {batch}; a DLA takes {LARGEST_BATCH} at most", "export it with a smaller --batch"
        )
    return [batch, *sizes]


def _images(shape: list[int], preprocessing: Preprocessing | None) -> Float32Array:
    """Return standard normal images and, for three channels, real ones: (N, C, H, W) float32."""
    channels, height, width = shape[1:]
    if channels != 3:
        return np.random.default_rng(0).standard_normal((RANDOM_IMAGES, *shape[1:])).astype(np.float32)
    fits = preprocessing is not None and list(preprocessing.shape) == shape[1:]
    size = (height, width)
    return parity_images(size, real_images(preprocessing if preprocessing and fits else Preprocessing.for_size(size)))


def _manifest(source: Manifest | None, result: DlaConversion) -> Manifest:
    manifest = source or Manifest(kind="onnx", sha256="", precision="fp32")
    versions = {name: version for name in RECORDED_VERSIONS if (version := installed_version(name))}
    document = result.to_dict()
    return replace(
        manifest,
        inputs={**manifest.inputs, "model": sha256_file(result.source)},
        versions={**manifest.versions, **versions},
        command=this_command(),
        details={**manifest.details, "form": "dla", "dla": {**document["dla"], "parity": document["parity"]}},
    )
