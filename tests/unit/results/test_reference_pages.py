"""The reference pages name fields that exist, and the plots show the recorded results."""

import json
import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest

from emca_deploy.artifacts import Manifest

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs/reference"
SCHEMAS = ROOT / "emca_deploy/results/schemas"


def named(rows: str) -> set[str]:
    """Return the field names in the first column of a page's tables."""
    columns = re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE)
    return {part for column in columns for word in re.findall(r"`([\w.\[\]]+)`", column) for part in re.findall(r"\w+", word)}


def properties(schema: object) -> set[str]:
    """Return the names of all properties of a JSON Schema, nested ones too."""
    if isinstance(schema, list):
        return set().union(*map(properties, schema)) if schema else set()
    if not isinstance(schema, dict):
        return set()
    return set(schema.get("properties", {})) | set().union(*map(properties, schema.values()))


@pytest.mark.parametrize("command", ["deploy", "profile", "validate"])
def test_the_fields_of_a_result_exist(command: str) -> None:
    sections = re.split(r"^## ", (PAGES / "results.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [text for text in sections if text.startswith(f"{command}\n")]
    assert len(named(section)) > 7
    assert named(section) <= properties(json.loads((SCHEMAS / f"{command}.json").read_text(encoding="utf-8")))


def test_every_schema_is_named() -> None:
    text = (PAGES / "results.md").read_text(encoding="utf-8")
    assert set(re.findall(r"schemas/([\w-]+\.json)", text)) == {path.name for path in SCHEMAS.iterdir()}


def test_the_manifest_page_has_every_field() -> None:
    before_details = (PAGES / "manifest.md").read_text(encoding="utf-8").split("`details` depends")[0]
    assert named(before_details) == {field.name for field in fields(Manifest)} - {"details"}


def test_the_plots_show_the_recorded_results() -> None:
    drawn = runpy.run_path(str(ROOT / "benchmarks/plots.py"))
    texts = [plot() + "\n" for plot in drawn["PLOTS"]]
    kept = {
        path.read_text(encoding="utf-8") for path in (ROOT / "docs/images").glob("*.svg") if 'class="paper"' in path.read_text()
    }
    assert set(texts) == kept
