"""The manifest of a bundle, in the layout of ONNX Runtime's model packages (1.32 opens the folder with `ModelPackage`).

ONNX Runtime refuses unknown fields. What it has no field for is under `additional_metadata`, by the name of this package.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from emca_deploy._version import __version__
from emca_deploy.bundles.canonical_zip import damaged
from emca_deploy.errors import DataError
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.bundle import BundleVariant
from emca_deploy.results.codec import from_json, to_json, version

__all__ = ["PACKAGE", "PackageFacts", "package_json", "package_of"]

PACKAGE = "manifest.json"
SCHEMA = "1.0"
COMPONENT = "model"
OURS = "emca_deploy"
BUNDLE_VERSION = 1

_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class PackageFacts:
    """What a bundle says of itself; the fields are those of `BundleReport`."""

    name: str
    variants: tuple[BundleVariant, ...]
    preprocessing: Preprocessing | None
    classes: tuple[str, ...]
    licence: str | None
    notes: tuple[str, ...] = ()
    emca_deploy: str = __version__
    bundle_version: int = version(BUNDLE_VERSION)


def package_json(facts: PackageFacts) -> dict[str, Any]:
    """Return the manifest. ONNX Runtime takes the first variant that it can run, so the order is that of `facts.variants`."""
    values = to_json(facts)
    values.pop("variants")
    return {
        "schema_version": SCHEMA,
        "package_name": facts.name,
        "components": {COMPONENT: {"variants": {variant.name: _variant(variant) for variant in facts.variants}}},
        "additional_metadata": {OURS: values},
    }


def _variant(variant: BundleVariant) -> dict[str, Any]:
    place = PurePosixPath(variant.file)
    found: dict[str, Any] = {"variant_directory": str(place.parent)}
    if variant.kind == "onnx" and variant.backend in (None, "onnxruntime"):
        found |= {"ep": _PROVIDER, "executor_info": {"ort": {"model_file": place.name}}}
    values = to_json(variant)
    values.pop("name")
    return {**found, "additional_metadata": {OURS: values}}


def package_of(values: Any, place: Path) -> PackageFacts:
    """Return what a manifest says.

    Raises:
        BundleError: it is none of a bundle, or of a newer version.
    """
    try:
        variants = _at(values, "components", COMPONENT, "variants")
        found = [{"name": name, **_at(variant, "additional_metadata", OURS)} for name, variant in variants.items()]
        facts: PackageFacts = from_json(PackageFacts, {**_at(values, "additional_metadata", OURS), "variants": found})
    except DataError as exc:
        raise damaged(place, f"{PACKAGE}: {exc.problem}") from exc
    except (KeyError, TypeError, AttributeError) as exc:
        raise damaged(place, f"{PACKAGE} is not the manifest of a bundle") from exc
    if package_json(facts) != values:
        raise damaged(place, f"{PACKAGE} contradicts itself")
    return facts


def _at(values: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        values = values[name]
    return values
