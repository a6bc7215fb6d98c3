"""The pages of a sweep and of a deployment in a real browser."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from browser import CHROMIUM, run_in_page

from emca_deploy.cli import run
from emca_deploy.results.codec import to_json
from zoo.sweeps import cells_of, deployment_of, failed, result_of, write_sweep

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
found.filtered = texts(Math.max(place("backend"), 0));
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

ZOOM = """
const found = { openers: doc.querySelectorAll("button.opener").length, canvases: doc.querySelectorAll("canvas").length };
doc.querySelector("details.cell").open = true;
const figure = doc.querySelector("figure.zoom");
figure.querySelector("button.opener").click();
const focused = doc.activeElement.textContent;
const range = () => { const { min, max } = figure.plot.scales.x; return [min, max]; };
const pause = () => new Promise((done) => setTimeout(done, 50));
await pause();
const steps = [range()];
for (const each of figure.querySelectorAll(".tools button")) {
  each.click();
  await pause();
  steps.push(range());
}
return { ...found, focused, steps, drawn: figure.querySelectorAll("canvas").length, room: doc.documentElement.scrollWidth,
  svg: view.getComputedStyle(figure.querySelector("svg")).display,
  picture: view.getComputedStyle(doc.querySelector(".picture")).backgroundImage };
"""

AXE = """
for (const each of doc.querySelectorAll("details")) each.open = true;
for (const each of Array.from(doc.querySelectorAll("button.opener")).slice(0, 2)) each.click();
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


@pytest.fixture(scope="module")
def deployment_page(tmp_path_factory):
    """The page of a deployment of four candidates with requirements."""
    folder = tmp_path_factory.mktemp("deployed")
    (folder / "result.json").write_text(json.dumps(to_json(deployment_of(cells_of(models=["a.onnx"])))))
    assert run(["report", str(folder), "--require", "drop<=2, p50<=60ms"]) == 0
    return folder / "report.html"


@pytest.mark.parametrize("width_px", [390, 1300])
def test_a_deployments_table_sorts_and_its_recommendation_is_on_the_first_screen(width_px, deployment_page, tmp_path):
    found, messages = run_in_page(deployment_page, tmp_path, width_px, STEPS.replace("ms per image", "p50 ms"))
    assert "error" not in found, found
    assert messages == []
    assert found["room"] <= width_px
    assert found["sentence"] < 450
    way, times = found["ascending"]
    assert (way, times) == ("ascending", sorted(times, key=float))
    assert found["descending"] == ["descending", times[::-1]]
    assert [row["name"] for row in csv.DictReader(io.StringIO(found["copied"]))] == ["openvino int8"]
    assert found["opened"]


@pytest.mark.parametrize("width_px", [390, 1300])
def test_a_plot_over_time_is_drawn_when_it_is_asked_for_and_zoomed_into_by_keys(width_px, deployment_page, tmp_path):
    found, messages = run_in_page(deployment_page, tmp_path, width_px, ZOOM)
    assert "error" not in found, found
    assert messages == []
    assert (found["openers"], found["canvases"], found["drawn"], found["svg"]) == (12, 0, 1, "none")
    assert found["focused"] == "Zoom in"
    assert found["picture"].startswith('url("data:image/jpeg')
    assert found["room"] <= width_px
    whole, inside, outside, *_, last = found["steps"]
    assert inside[1] - inside[0] == (whole[1] - whole[0]) / 2
    assert outside == whole == last


@pytest.mark.parametrize("kind", ["sweep", "deployment"])
@pytest.mark.parametrize("width_px", [390, 1300])
def test_axe_finds_nothing(kind, width_px, page, deployment_page, tmp_path):
    """EMCA_DEPLOY_AXE is the path of axe.min.js: npm pack axe-core."""
    place = os.environ.get("EMCA_DEPLOY_AXE")
    if place is None:
        pytest.skip("EMCA_DEPLOY_AXE does not name axe.min.js")
    source = json.dumps(Path(place).read_text(encoding="utf-8")).replace("</", "<\\/")
    place_of = {"sweep": page, "deployment": deployment_page}
    found, messages = run_in_page(place_of[kind], tmp_path, width_px, f"const source = {source};{AXE}")
    assert found == []
    assert messages == []
