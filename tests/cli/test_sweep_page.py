"""The page of a sweep in a real browser."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from browser import CHROMIUM, run_in_page

from emca_deploy.cli import run
from zoo.sweeps import cells_of, failed, result_of, write_sweep

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

STEPS = """
const rows = () => Array.from(doc.querySelectorAll("#cells tbody tr:not([hidden])"));
const texts = (column) => rows().map((row) => row.cells[column].textContent.trim());
const heads = Array.from(doc.querySelectorAll("#cells thead th"));
const place = (name) => heads.findIndex((head) => head.textContent.trim() === name);
const time = place("ms per image");
const press = () => heads[time].querySelector("button").click();
const found = { room: doc.documentElement.scrollWidth };
found.sentence = doc.querySelector(".verdict > p:not(.note)").getBoundingClientRect().bottom;
press();
found.ascending = [heads[time].getAttribute("aria-sort"), texts(time)];
press();
found.descending = [heads[time].getAttribute("aria-sort"), texts(time)];
const filter = doc.getElementById("filter");
filter.value = "int8 openvino";
filter.dispatchEvent(new view.Event("input"));
found.filtered = texts(place("backend"));
let copied;
Object.defineProperty(view.navigator, "clipboard", { value: { writeText: async (text) => { copied = text; } } });
doc.getElementById("copy").click();
await new Promise((done) => setTimeout(done, 50));
found.copied = copied;
found.said = doc.getElementById("table-status").textContent;
const link = doc.querySelector("#cells tbody a");
link.addEventListener("click", (event) => event.preventDefault()); // a frame's own text has no place to go to
link.click();
found.opened = doc.getElementById(link.getAttribute("href").slice(1)).open;
return found;
"""

AXE = """
for (const each of doc.querySelectorAll("details")) each.open = true;
const script = doc.createElement("script");
script.textContent = source;
doc.head.append(script);
const report = await view.axe.run(doc, { resultTypes: ["violations"] });
return report.violations.map((each) => [each.id, each.nodes.map((node) => node.html).slice(0, 3)]);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a sweep with failed cells and cells that were not measured."""
    first, *others = [result_of(cell, seed) for seed, cell in enumerate(cells_of())]
    pending = cells_of(models=["c.onnx"], backends=["openvino"], precisions=["int8"])
    folder = write_sweep(tmp_path_factory.mktemp("page") / "out", [failed(first), *others], pending)
    assert run(["report", str(folder), "--require", "drop<=2, p50<=60ms"]) == 0
    return folder / "report.html"


@pytest.mark.parametrize("width_px", [390, 1300])
def test_the_table_sorts_filters_and_copies(width_px, page, tmp_path):
    found, messages = run_in_page(page, tmp_path, width_px, STEPS)
    assert "error" not in found, found
    assert messages == []
    assert found["room"] <= width_px  # the page itself does not scroll sideways
    assert found["sentence"] < 450  # the recommendation is on the first screen
    way, times = found["ascending"]
    values = [float(text) for text in times if text != "-"]
    assert (way, values) == ("ascending", sorted(values))
    way, times = found["descending"]
    assert (way, [float(text) for text in times if text != "-"]) == ("descending", values[::-1])
    assert times[-1] == "-"  # a cell without a value is last either way
    assert found["filtered"] == ["openvino"] * 3
    rows = list(csv.DictReader(io.StringIO(found["copied"])))
    assert [(row["backend"], row["precision"]) for row in rows] == [("openvino", "int8")] * 3
    assert found["said"]
    assert found["opened"]


@pytest.mark.parametrize("width_px", [390, 1300])
def test_axe_finds_nothing(width_px, page, tmp_path):
    """EMCA_DEPLOY_AXE is the path of axe.min.js: npm pack axe-core."""
    place = os.environ.get("EMCA_DEPLOY_AXE")
    if place is None:
        pytest.skip("EMCA_DEPLOY_AXE does not name axe.min.js")
    source = json.dumps(Path(place).read_text(encoding="utf-8")).replace("</", "<\\/")
    found, messages = run_in_page(page, tmp_path, width_px, f"const source = {source};{AXE}")
    assert found == []
    assert messages == []
