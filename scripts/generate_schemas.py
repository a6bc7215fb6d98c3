"""Write the JSON Schemas that the package ships, from its records: `python scripts/generate_schemas.py`."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.bundle import BundleReport, LayoutReport
from emca_deploy.results.check_preprocess import PreprocessCheck
from emca_deploy.results.deploy import DeployReport
from emca_deploy.results.detection import DetectionReport
from emca_deploy.results.fleet import FleetReport
from emca_deploy.results.history import HistoryReport
from emca_deploy.results.latency import CompareReport, ProfileReport
from emca_deploy.results.layers import LayersReport
from emca_deploy.results.logits_comparison import LogitsComparison
from emca_deploy.results.requirements import RequirementsReport
from emca_deploy.results.run import ImageAnswer
from emca_deploy.results.sensitivity import SensitivityReport
from emca_deploy.results.sweep import CellResult, SweepReport
from emca_deploy.results.sweep_choice import SweepDocument
from emca_deploy.results.tuning import TuneReport

__all__ = ["SCHEMAS", "schema_of"]

SCHEMAS: dict[str, Any] = {
    "profile": ProfileReport,
    "compare": CompareReport,
    "compare-logits": LogitsComparison,
    "validate": AccuracyReport,
    "validate-detection": DetectionReport,
    "tune": TuneReport,
    "layers": LayersReport,
    "sensitivity": SensitivityReport,
    "deploy": DeployReport,
    "gate": RequirementsReport,
    "history": HistoryReport,
    "sweep": SweepReport,
    "sweep-cell": CellResult,
    "fleet": FleetReport,
    "report": SweepDocument,
    "bundle": BundleReport,
    "bundle-layout": LayoutReport,
    "check-preprocess": PreprocessCheck,
    "run": ImageAnswer,
}
"""Name of the command, and of the task where a command has several documents -> the record that it prints."""

FOLDER = Path(__file__).parents[1] / "emca_deploy/results/schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(name: str) -> dict[str, Any]:
    """Return the schema of a command's document."""
    record = SCHEMAS[name]
    found = _without_titles(TypeAdapter(record).json_schema(mode="serialization"))
    (version,) = (field.default for field in fields(record) if field.name == "schema_version")
    found["properties"]["schema_version"] = {"const": version}
    required = [*found["required"], "schema_version"]
    return {"$schema": DIALECT, **found, "required": required, "title": f"emca-deploy {name} --json"}


def _without_titles(value: Any) -> Any:
    """Leave out the titles that only repeat a field's name."""
    if isinstance(value, dict):
        return {key: _without_titles(inner) for key, inner in value.items() if key != "title" or not isinstance(inner, str)}
    return [_without_titles(inner) for inner in value] if isinstance(value, list) else value


def main() -> None:
    """Write every schema into the package."""
    for name in SCHEMAS:
        text = json.dumps(schema_of(name), indent=1, sort_keys=True)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
