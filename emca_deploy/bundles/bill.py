"""The bill of materials of a bundle, as CycloneDX 1.6 JSON without times or random numbers."""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from emca_deploy._version import __version__
from emca_deploy.artifacts import Manifest
from emca_deploy.bundles.contents import Contents

__all__ = ["bill_of"]

_NAMESPACE = uuid.UUID("6f6d0f3e-5a55-5d5c-9f5e-0c3b4a1e6f0a")
_PACKAGES = {"onnx_ir": "onnx-ir"}
"""Names on PyPI of libraries that a manifest calls otherwise."""


def bill_of(contents: Contents, name: str, licence: str | None) -> dict[str, Any]:
    """Return the bill of materials: each artifact with its hash, and each library that made one with its version.

    The serial number follows from the artifacts' hashes (UUID version 5).
    """
    hashes = sorted(manifest.sha256 for manifest in contents.manifests.values())
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, ' '.join(hashes))}",
        "version": 1,
        "metadata": {
            "component": {"type": "machine-learning-model", "bom-ref": "bundle", "name": name},
            "tools": {"components": [{"type": "application", "name": "emca-deploy", "version": __version__}]},
        },
        "components": [*_models(contents, licence), *_libraries(contents.manifests)],
    }


def _models(contents: Contents, licence: str | None) -> list[dict[str, Any]]:
    licences = {} if licence is None else {"licenses": [{"license": {"name": licence}}]}
    return [
        {
            "type": "machine-learning-model",
            "bom-ref": variant.file,
            "name": variant.name,
            "hashes": [{"alg": "SHA-256", "content": contents.manifests[variant.name].sha256}],
            **licences,
            "properties": [
                {"name": f"emca-deploy:{role}:sha256", "value": digest}
                for role, digest in sorted(contents.manifests[variant.name].inputs.items())
            ],
        }
        for variant in contents.variants
    ]


def _libraries(manifests: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    found = {(_PACKAGES.get(name, name), version) for each in manifests.values() for name, version in each.versions.items()}
    return [
        {
            "type": "library",
            "bom-ref": f"{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{re.split('[+-]', version)[0]}",
            "scope": "excluded",
        }
        for name, version in sorted(found)
    ]
