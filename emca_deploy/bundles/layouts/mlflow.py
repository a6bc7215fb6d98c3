"""A model of MLflow, which runs with numpy and a runtime and without this package."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.records import BACKENDS
from emca_deploy.bundles.layouts.served import Layout, Served, rendered
from emca_deploy.bundles.layouts.triton import library_of

__all__ = ["MLFLOW"]


def _files(served: Served) -> Mapping[str, str | Path]:
    digest, manifest = served.manifest.sha256, served.manifest
    package = BACKENDS[served.library].package
    assert package is not None
    module = f"model_{digest[:12]}"  # two models in one process need two names
    loader = rendered(
        "mlflow_loader.py",
        served,
        runtime=served.library,
        batch=_batch(served),
        settings=served.openvino_settings,
        exact_sums=manifest.precision == "int8" and manifest.details.get("weight_bits") != 7,
    )
    image = served.inputs[0]
    readme = rendered(
        "README.md",
        served,
        server="MLflow",
        tried="emca-deploy's tests load such a folder with `mlflow.pyfunc.load_model` and ask the server below.",
        start="mlflow models serve --model-uri PATH_OF_THIS_FOLDER --env-manager local --port 5000",
        request='POST `/invocations` with `{"inputs": [...]}`, nested lists of the shape above; the answer has `predictions`.'
        f" In Python: `mlflow.pyfunc.load_model(PATH).predict(images)`, a numpy array of {image.dtype}.",
        notes=(),
    )
    return {
        "MLmodel": rendered(
            "MLmodel",
            served,
            module=module,
            digest=digest,
            inputs=_schema(served.inputs, named=False),
            outputs=_schema(served.outputs, named=len(served.outputs) > 1),
        ),
        f"code/{module}.py": loader,
        **{f"data/{name}": path for name, path in served.files.items()},
        **({"labels.txt": served.labels} if served.classes else {}),
        "python_env.yaml": rendered("python_env.yaml", served),
        "requirements.txt": f"mlflow>=3\nnumpy\n{package.distribution}>={package.minimum}\n",
        "README.md": readme,
    }


def _batch(served: Served) -> int:
    """Return the number of images that a call of the model takes; 0 for any, or if an output has not one row an image."""
    batch, *others = {tensor.shape[0] if tensor.shape else None for tensor in (*served.inputs, *served.outputs)}
    return batch if isinstance(batch, int) and not others else 0


def _schema(tensors: Sequence[TensorSpec], *, named: bool) -> str:
    """Return MLflow's description of tensors; a batch is any number of images, since the loader splits them."""
    return json.dumps(
        [
            {
                **({"name": tensor.name} if named else {}),
                "type": "tensor",
                "tensor-spec": {"dtype": tensor.dtype, "shape": [-1, *(_size(size) for size in tensor.shape[1:])]},
            }
            for tensor in tensors
        ]
    )


def _size(size: int | str) -> int:
    return -1 if isinstance(size, str) else size


MLFLOW = Layout("mlflow", "MLflow", library_of, "an ONNX model for onnxruntime or openvino", _files)
