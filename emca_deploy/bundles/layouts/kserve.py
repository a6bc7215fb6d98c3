"""An InferenceService of KServe, whose Triton runtime serves the model repository."""

from collections.abc import Mapping
from pathlib import Path

from emca_deploy.bundles.layouts.served import Layout, Served, rendered
from emca_deploy.bundles.layouts.triton import library_of, repository, request_of

__all__ = ["KSERVE"]


def _files(served: Served) -> Mapping[str, str | Path]:
    readme = rendered(
        "README.md",
        served,
        server="KServe",
        tried="emca-deploy's tests check such an InferenceService with the schema of KServe's own resource definition, and "
        "`config.pbtxt` with NVIDIA's `tritonclient`. They run no cluster and no server.",
        start="kubectl apply -f inference-service.yaml",
        request=request_of(served),
        notes=("Copy `model_repository` to your storage first, and name the place as `storageUri` in `inference-service.yaml`.",),
    )
    return {
        "inference-service.yaml": rendered("inference-service.yaml", served, cpus=served.values.get("threads") or 1),
        **{f"model_repository/{name}": file for name, file in repository(served).items()},
        "README.md": readme,
    }


KSERVE = Layout("kserve", "KServe", library_of, "an ONNX model for onnxruntime or openvino", _files)
