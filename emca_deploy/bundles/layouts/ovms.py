"""The model repository of OpenVINO Model Server, with its configuration."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emca_deploy.bundles.layouts.served import Layout, Served, rendered
from emca_deploy.bundles.layouts.triton import request_of
from emca_deploy.results.bundle import BundleVariant

__all__ = ["OVMS"]


def _runs(variant: BundleVariant) -> str | None:
    return "openvino" if variant.kind == "onnx" and variant.backend in (None, "openvino") else None


def _files(served: Served) -> Mapping[str, str | Path]:
    config: dict[str, Any] = {
        "name": served.name,
        "base_path": served.name,
        "target_device": "CPU",
        "plugin_config": served.openvino_settings,
    }
    streams = served.values.get("streams")
    if isinstance(streams, int):
        config["nireq"] = streams
    if len(served.inputs[0].shape) == 4:
        config["layout"] = {served.inputs[0].name: "NHWC" if served.channels_last else "NCHW"}
    readme = rendered(
        "README.md",
        served,
        server="OpenVINO Model Server",
        tried="emca-deploy's tests check such a `config.json` with the server's own schema and load the model with OpenVINO. "
        "They do not run the server.",
        start="ovms --config_path config.json --rest_port 8000",
        request=request_of(served),
        notes=(),
    )
    return {
        "config.json": json.dumps({"model_config_list": [{"config": config}]}, indent=1, ensure_ascii=False) + "\n",
        **{f"{served.name}/1/{name}": path for name, path in served.files.items()},
        **({"labels.txt": served.labels} if served.classes else {}),
        "README.md": readme,
    }


OVMS = Layout("ovms", "OpenVINO Model Server", _runs, "an ONNX model for openvino, or a plain one", _files)
