"""The model repository of Triton Inference Server."""

from collections.abc import Mapping
from pathlib import Path

from emca_deploy.artifacts import TensorSpec
from emca_deploy.bundles.layouts.served import Layout, Served, rendered
from emca_deploy.errors import BundleError
from emca_deploy.results.bundle import BundleVariant

__all__ = ["TRITON", "library_of", "repository", "request_of"]

TYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}
"""Triton's names of types, which are those of the Open Inference Protocol, by numpy's."""

MAX_BATCH = 8
"""Largest batch that Triton collects for a model that takes any number of images, unless `tune` found a larger one fastest."""

_ORT, _OPENVINO, _TENSORRT = "onnxruntime", "openvino", "tensorrt"


def library_of(variant: BundleVariant) -> str | None:
    """Return the backend that runs an ONNX model on a CPU; None for other artifacts."""
    library = variant.backend or _ORT
    return library if variant.kind == "onnx" and library in (_ORT, _OPENVINO) else None


def _runs(variant: BundleVariant) -> str | None:
    return _TENSORRT if variant.kind == "engine" and variant.backend == _TENSORRT else library_of(variant)


def repository(served: Served) -> dict[str, str | Path]:
    """Return the files of a model repository with one model.

    Raises:
        BundleError: the model has a type that Triton does not know.
    """
    for tensor in (*served.inputs, *served.outputs):
        if tensor.dtype not in TYPES:
            problem = f"{served.variant.file}: '{tensor.name}' is {tensor.dtype}, which Triton does not take"
            raise BundleError(problem, "export the model with float32 inputs and outputs")
    engine = served.library == _TENSORRT
    largest = _max_batch(served)
    config = rendered(
        "config.pbtxt",
        served,
        backend=served.library,
        model_file="model.onnx" if served.library == _OPENVINO else "",
        max_batch=largest,
        types=TYPES,
        sizes=lambda tensor: _sizes(tensor, batched=largest > 0),
        has_labels=bool(served.classes) and len(served.outputs) == 1,
        instances=_streams(served) if served.library == _OPENVINO else 1,
        kind_of_instance="KIND_GPU" if engine else "KIND_CPU",
        parameters=_parameters(served),
    )
    files: dict[str, str | Path] = {f"{served.name}/config.pbtxt": config}
    for name, path in served.files.items():
        files[f"{served.name}/1/{'model.plan' if engine else name}"] = path
    if served.classes:
        files[f"{served.name}/labels.txt"] = served.labels
    return files


def _max_batch(served: Served) -> int:
    """Return Triton's `max_batch_size`: 0 where the batch is an axis like any other."""
    if not served.takes_any_batch:
        return 0
    batches = served.manifest.details.get("tensorrt", {}).get("batches")
    return int(batches[2]) if batches else max(MAX_BATCH, served.tuned_batch or 0)


def _sizes(tensor: TensorSpec, *, batched: bool) -> list[int]:
    """Return the sizes of a tensor, without the batch where Triton adds it; -1 is dynamic."""
    sizes = [-1 if isinstance(size, str) else size for size in tensor.shape]
    return sizes[1:] if batched else sizes


def _streams(served: Served) -> int:
    streams = served.values.get("streams")
    return streams if isinstance(streams, int) else 1


def _parameters(served: Served) -> dict[str, str | int]:
    """Return the parameters of Triton's backend."""
    values, threads = served.values, served.values.get("threads")
    found: dict[str, str | int] = {}
    if served.library == _ORT and threads:
        found["intra_op_thread_count"] = threads
        if values.get("execution_mode") == "parallel":
            found |= {"execution_mode": 1, "inter_op_thread_count": threads}
    if served.library == _OPENVINO:  # Triton passes no precision on
        found |= {name: value for name, value in served.openvino_settings.items() if name != "INFERENCE_PRECISION_HINT"}
    return found


def request_of(served: Served) -> str:
    """Return how to ask a server of the Open Inference Protocol."""
    image = served.inputs[0]
    sizes = ", ".join("1" if isinstance(size, str) else str(size) for size in image.shape)
    datatype = TYPES.get(image.dtype, image.dtype.upper())
    return (
        f"POST `/v2/models/{served.name}/infer` with\n\n"
        f'    {{"inputs": [{{"name": "{image.name}", "shape": [{sizes}], "datatype": "{datatype}", "data": [...]}}]}}'
    )


def _files(served: Served) -> Mapping[str, str | Path]:
    notes = []
    if served.library == _OPENVINO:
        notes.append(
            "Triton's OpenVINO backend chooses the precision itself: a processor with BF16 may change the last digits of logits."
        )
    readme = rendered(
        "README.md",
        served,
        server="Triton Inference Server",
        tried="emca-deploy's tests read such a `config.pbtxt` with NVIDIA's `tritonclient`. They do not run the server.",
        start="tritonserver --model-repository=PATH_OF_THIS_FOLDER",
        request=request_of(served),
        notes=notes,
    )
    return {**repository(served), "README.md": readme}


TRITON = Layout("triton", "Triton", _runs, "an ONNX model for onnxruntime or openvino, or an engine of tensorrt", _files)
