"""Rewrites a finished ONNX file so that it takes plain pixels, and compares the result with the original."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy._optional import installed_version
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import Manifest, read_manifest, sha256_file, this_command, write_artifact
from emca_deploy.data.choosing import preprocessing_of_file
from emca_deploy.data.preprocess import normalize
from emca_deploy.errors import InputError
from emca_deploy.exporting.detection_parity import DENSE_TOLERANCE
from emca_deploy.exporting.parity import MAX_RELATIVE_ERROR, Parity, gated_parity, real_images, run_onnx
from emca_deploy.exporting.pixel_input import PixelInput, take_pixels
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.refusal import graph_errors
from emca_deploy.preprocessing import Preprocessing, PreprocessingOptions
from emca_deploy.results.codec import to_json
from emca_deploy.tasks.inputs import native_images
from emca_deploy.tasks.outputs import SCORES

__all__ = ["PixelConversion", "convert_to_pixels"]

RANDOM_IMAGES = 4
RECORDED_VERSIONS = ("onnx_ir", "onnx", "onnxruntime", "numpy")

TOLERANCES = {"fp32": MAX_RELATIVE_ERROR, "fp16": 2e-3, "int8": 5e-2}
"""Largest relative errors: the last digit of a normalized pixel may round to another fp16 number or integer."""


@dataclass(frozen=True)
class PixelConversion:
    """The result of a conversion.

    Attributes:
        source: file it was made from.
        graph: how the graph computes its preprocessing.
        network: preprocessing of the source, which the graph now contains a part of.
        preprocessing: preprocessing of the file.
        parity: parity of the file with its source.
    """

    onnx: Path
    source: Path
    graph: PixelInput
    network: Preprocessing
    preprocessing: Preprocessing
    parity: Parity

    def record(self) -> dict[str, Any]:
        """Return what the JSON document and the manifest both have of it."""
        return {**to_json(self.graph), "network": to_json(self.network), "parity": to_json(self.parity)}


def convert_to_pixels(
    model: Path, output: Path, form: str, said: PreprocessingOptions | Preprocessing | None = None, *, fold_mean: bool = True
) -> PixelConversion:
    """Write a model that takes pixels of 0 to 255 in RGB or gray, with a manifest, after comparing it with the original.

    Args:
        model: ONNX file with a float input (N, C, H, W).
        output: file to write.
        form: one of `INPUT_FORMS`.
        said: its preprocessing, or known facts about it; the manifest has the rest.
        fold_mean: whether the first layers may take the mean into their biases.

    Raises:
        ModelError: the model cannot be read, or ONNX Runtime does not run it.
        InputError: it takes pixels already, its letterbox is filled with no pixel value, or `output` is `model`.
        GateError: an output differs by more than rounding; no file is left.
        OutputError: `output` cannot be written.
    """
    if output.exists() and model.exists() and output.samefile(model):
        raise InputError(f"{output}: is the model itself", "name another output with -o")
    file = OnnxFile.open(model)
    if file.image.dtype == "uint8" or file.image.layout == "NHWC":
        problem = f"{model}: its input '{file.image.name}' is {file.image.dtype} in {file.image.layout} already"
        raise InputError(problem, "leave --input out, or name a file whose input is float32 (N, C, H, W)")
    network = said if isinstance(said, Preprocessing) else preprocessing_of_file(model, said or PreprocessingOptions())
    try:
        pixels = network.of_pixels(form)
    except ValueError as exc:
        raise InputError(f"--input {form}: {model}: {exc}", "give a whole number with --pad-value, or leave --input out") from exc
    with write_artifact(output) as draft:
        with graph_errors(model):
            loaded = file.load()
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(loaded)
            graph = take_pixels(loaded, form, network, fold_mean=fold_mean)
            ir.save(loaded, draft.path)
        parity = _parity(file, draft.path, form, (network, pixels))
        made = PixelConversion(output, model, graph, network, pixels, parity)
        draft.manifest = _manifest(read_manifest(model, verify=False), made, file)
    return made


def _parity(file: OnnxFile, made: Path, form: str, used: tuple[Preprocessing, Preprocessing]) -> Parity:
    """Compare both files on random and real pixels; of a whole detector only the scores: ties change the order."""
    network, pixels = used
    random = np.random.default_rng(0).integers(0, 256, (RANDOM_IMAGES, *pixels.shape)).astype(np.float32)
    images = np.concatenate([random, real_images(pixels)])
    ordered = images[:, ::-1] if network.channels == "bgr" else images
    normal = np.stack([normalize(image.copy(), network) for image in ordered])
    given = normal.astype(file.image.dtype)
    dtype, layout = form.split("-")
    found = run_onnx(made, native_images(images, dtype, channels_last=layout == "nhwc"))
    problem, remedy = "pixels as input change the outputs", "report where the model came from"
    gate = TOLERANCES.get(file.precision, TOLERANCES["fp16"])
    gate = max(gate, DENSE_TOLERANCE) if file.task == "detection" else gate
    names = [value.name for value in file.graph.output]
    parities = [
        gated_parity(_rows(one), _rows(other), gate, problem, remedy)
        for name, one, other in zip(names, run_onnx(file.path, given), found, strict=True)
        if SCORES not in names or name == SCORES
    ]
    return max(parities, key=lambda one: one.max_rel)


def _rows(output: npt.NDArray[Any]) -> Float32Array:
    return np.asarray(output, np.float32).reshape(len(output), -1)


def _manifest(source: Manifest | None, made: PixelConversion, file: OnnxFile) -> Manifest:
    manifest = source or Manifest(kind="onnx", sha256="", precision=file.precision)
    versions = {name: version for name in RECORDED_VERSIONS if (version := installed_version(name))}
    return replace(
        manifest,
        preprocessing=made.preprocessing,
        inputs={**manifest.inputs, "model": sha256_file(made.source)},
        versions={**manifest.versions, **versions},
        command=this_command(),
        details={**manifest.details, "in_graph": made.record()},
        settings=(),
    )
