"""What the folder of a deployment or sweep has for the details of its page: manifests, other results, and images."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from emca_deploy.api.sweeping.plan_file import read_plan_file
from emca_deploy.artifacts import read_manifest, sha256_file
from emca_deploy.data.sources import open_source
from emca_deploy.errors import EmcaError
from emca_deploy.harness.accuracy.pictures import pictures_of
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.reporting.details.found import Found
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import from_json
from emca_deploy.results.deploy import Picture
from emca_deploy.results.latency import ProfileReport
from emca_deploy.results.layers import ArtifactLayers, LayersReport
from emca_deploy.results.sensitivity import SensitivityReport
from emca_deploy.results.sweep import CellResult, SweepReport

__all__ = ["find_details", "sweep_pictures"]

_LARGEST_BYTES = 32 << 20
"""Largest file that is read as a result of another command."""

_HASHED_BYTES = 256 << 20
"""Largest file without a manifest whose sha256 is computed."""

_PICTURES = 64
"""Most pictures on the page of a sweep."""


def find_details(folder: Path, cells: Mapping[str, CellResult]) -> Found:
    """Return what a folder has about its cells or candidates; files that are missing or damaged are left out."""
    layers: dict[str, ArtifactLayers] = {}
    sensitivity: dict[str, SensitivityReport] = {}
    further: list[AccuracyReport | ProfileReport] = []
    for each in _other_results(folder):
        if isinstance(each, AccuracyReport | ProfileReport):
            further.append(each)
        elif isinstance(each, SensitivityReport):
            sensitivity |= {key: each for key, cell in cells.items() if _is_about(each, cell)}
        else:
            about = [(key, measured) for measured in each.results for key, cell in cells.items() if _same(measured, cell, folder)]
            layers |= dict(about)
    files = {key: _file_facts(folder, cell.artifact) for key, cell in cells.items() if cell.artifact}
    return Found(files, layers, sensitivity, further)


def _other_results(folder: Path) -> Iterator[LayersReport | SensitivityReport | AccuracyReport | ProfileReport]:
    """Yield the results of other commands in a folder, the newest last."""
    places = [path for path in folder.glob("*.json") if not path.name.endswith(".manifest.json")]
    for path in sorted(places, key=lambda path: path.stat().st_mtime_ns):
        with suppress(OSError, ValueError, RecursionError, EmcaError):
            if path.stat().st_size <= _LARGEST_BYTES:
                values = json.loads(path.read_text(encoding="utf-8"))
                if isinstance(values, dict) and "units" in values:
                    yield from_json(SensitivityReport, values, str(path), "")
                elif isinstance(values, dict) and "results" in values and "comparisons" not in values:
                    yield from_json(LayersReport, values, str(path), "")
                elif isinstance(values, dict) and values.keys() & {"ledger", "corruptions"}:
                    yield from_json(AccuracyReport, values, str(path), "")
                elif isinstance(values, dict) and {"results", "comparisons"} <= values.keys():
                    yield from_json(ProfileReport, values, str(path), "")


def _same(measured: ArtifactLayers, cell: CellResult, folder: Path) -> bool:
    """Return whether layers are those of a cell: of its artifact or the model of that, with its backend, precision and batch.

    A file of a deployment that has been moved counts by its name; the files of a sweep may all have the same name.
    """
    own = cell.cell
    if (measured.backend, measured.precision, measured.batch) != (own.backend, own.precision, own.batch):
        return False
    path, artifact = Path(measured.artifact), Path(cell.artifact or "")
    if path.exists() or cell.inputs:
        names = [str(artifact), cell.files.get("model", str(artifact))]
        return path.resolve() in {place.resolve() for name in names for place in (folder / name, Path(name))}
    return path.name == artifact.name


def _is_about(report: SensitivityReport, cell: CellResult) -> bool:
    """Return whether a sensitivity is about a cell: the INT8 form of the model for the same backend.

    A deployment has a single model; the model of a sweep's cell has the same file name.
    """
    is_sweep = bool(cell.inputs)
    same = not is_sweep or Path(report.artifact).name == Path(cell.cell.model).name
    return same and cell.cell.precision == "int8" and cell.cell.backend == report.backend


def _file_facts(folder: Path, artifact: str) -> dict[str, Any]:
    """Return the sha256 of an artifact and how it was made, from its manifest; only its sha256 where it has none."""
    with suppress(OSError, EmcaError):
        places = (folder / artifact, Path(artifact), folder / Path(artifact).name)
        path = next((path for path in places if path.exists()), places[0])
        manifest = read_manifest(path, verify=False)
        if manifest is not None:
            made = {f"sha256 of the {role.replace('_', ' ')}": digest for role, digest in manifest.inputs.items()}
            return {"sha256": manifest.sha256, **made, "made by": manifest.command, "made with": manifest.versions}
        if path.is_file() and path.stat().st_size <= _HASHED_BYTES:
            return {"sha256": sha256_file(path)}
    return {}


def sweep_pictures(sweep: SweepReport, cells: Mapping[str, CellResult]) -> dict[int, Picture]:
    """Return images whose class differs between cells and their reference, by position; none where they cannot be read."""
    reports = [cell.accuracy for cell in cells.values() if cell.accuracy is not None]
    if not any(report.reference is not None for report in reports):
        return {}
    with suppress(OSError, EmcaError):
        plan = read_plan_file(Path(sweep.plan))
        name = plan.options.get("val")
        if isinstance(name, str):
            source = open_source(plan.place(name), Preprocessing())
            return {picture.index: picture for picture in pictures_of(source, reports, _PICTURES)}
    return {}
