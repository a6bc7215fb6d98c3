"""`emca-deploy report` of a sweep."""

import csv
import io
import json
from dataclasses import replace

import pytest
from PIL import Image

from emca_deploy.cli import run
from emca_deploy.results.codec import from_json
from emca_deploy.results.sweep_choice import SweepDocument
from zoo.sweeps import cells_of, failed, result_of, write_sweep

ALL = "drop<=2, p50<=60ms"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep of eight cells, one of which failed, and one that was not measured."""
    first, *others = [result_of(cell, seed) for seed, cell in enumerate(cells_of())]
    pending = cells_of(models=["c.onnx"], backends=["openvino"], precisions=["int8"])
    return write_sweep(tmp_path_factory.mktemp("sweep") / "out", [failed(first), *others], pending)


def document(sweep, capsys, *options):
    assert run(["report", str(sweep), "--format", "json", *options]) == 0
    return from_json(SweepDocument, json.loads(capsys.readouterr().out))


def outcomes(found):
    cells = {row.key: row.cell for row in found.sweep.cells}
    return {
        (cells[each.key].model[0], cells[each.key].backend, cells[each.key].precision): each for each in found.groups[0].cells
    }


def test_the_fastest_that_keeps_all_is_recommended(sweep, capsys):
    found = document(sweep, capsys, "--require", ALL)
    cells = outcomes(found)
    assert cells["a", "openvino", "int8"].outcome == "best"
    assert found.groups[0].best == cells["a", "openvino", "int8"].key
    assert cells["b", "onnxruntime", "fp32"].outcome == "slower"
    assert cells["a", "onnxruntime", "fp32"].outcome == "failed"
    assert cells["c", "openvino", "int8"].outcome == "pending"
    low, ratio, high = cells["b", "onnxruntime", "fp32"].time_ratio
    assert 1 < low < ratio < high


def test_requirements_are_decided_by_intervals(sweep, capsys):
    """The drop of INT8 is 0.3 points in 10,000 images: below 0.35, which its interval does not show."""
    cells = outcomes(document(sweep, capsys, "--require", "drop<=0.35"))
    assert cells["a", "openvino", "int8"].outcome == "undecided"
    assert cells["a", "openvino", "int8"].decisions[0].images_needed > 10_000
    assert cells["a", "openvino", "fp32"].outcome in ("best", "undecided")
    cells = outcomes(document(sweep, capsys, "--require", "drop<=0.01, p50<=0.01ms"))
    assert {each.outcome for each in cells.values()} == {"fails", "failed", "pending"}


def test_slowdown_is_relative_to_the_fp32_model(sweep, capsys):
    cells = outcomes(document(sweep, capsys, "--require", "slowdown<=50%"))
    assert [each.value for each in cells["b", "onnxruntime", "fp32"].decisions] == [0.0]
    assert cells["b", "openvino", "int8"].decisions[0].value < -50
    assert cells["a", "openvino", "int8"].unknown[0].requirement == "slowdown<=50%"  # its reference failed


def test_without_requirements_nothing_is_recommended(sweep, capsys):
    found = document(sweep, capsys)
    assert found.groups[0].best is None
    front = {row.key for row in found.sweep.cells if row.pareto}
    assert {each.key for each in found.groups[0].cells if each.outcome == "front"} == front
    assert all(each.against for each in found.groups[0].cells if each.outcome == "dominated")


def test_the_page_holds_everything(sweep, tmp_path, capsys):
    assert run(["report", str(sweep), "--require", ALL, "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    for row in json.loads((sweep / "sweep.json").read_text())["cells"]:
        assert page.count(f'id="cell-{row["key"]}"') == (row["status"] != "pending")
    assert "&lt;INT8&gt;" in page
    assert "<INT8>" not in page
    assert "a.onnx openvino int8" in capsys.readouterr().out
    assert not (sweep / "report.html").exists()


def test_csv_has_every_cell_with_full_precision(sweep, capsys):
    assert run(["report", str(sweep), "--format", "csv", "--require", ALL]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    index = {row["key"]: row for row in json.loads((sweep / "sweep.json").read_text())["cells"]}
    assert {row["key"] for row in rows} == set(index)
    done = next(row for row in rows if row["verdict"] == "best")
    assert float(done["p50_ms"]) == index[done["key"]]["p50_ms"]
    assert [float(done["drop_ci95_low"]), float(done["drop_ci95_high"])] == index[done["key"]]["drop_ci95"]


def test_markdown_has_a_row_for_each_cell(sweep, tmp_path):
    assert run(["report", str(sweep), "--format", "markdown", "-o", str(tmp_path / "table.md")]) == 0
    lines = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 9
    assert len({line.count(" | ") for line in lines}) == 1


def test_texts_of_others_stay_texts(tmp_path, capsys):
    (cell,) = cells_of(models=["a</script><b>{{ 7*7 }}\x00.onnx"], backends=["openvino"], precisions=["int8"])
    folder = write_sweep(tmp_path / "out", [replace(failed(result_of(cell, 0)), key="a" * 16)])
    assert run(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert page.count("</script>") == 1
    assert "<b>" not in page
    assert "{{ 7*7 }}" in page
    capsys.readouterr()
    cell = replace(cell, model="=cmd|' /C calc'!A0")
    folder = write_sweep(tmp_path / "formula", [failed(result_of(cell, 0))])
    assert run(["report", str(folder), "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["model"].startswith("'=")


@pytest.mark.parametrize("options", [["--require", "p98<=8ms"], ["--require", "p99<=8"], ["--require", ""]])
def test_a_wrong_requirement_is_refused(options, sweep, refused):
    refused("report", str(sweep), *options)


def test_a_damaged_cell_is_refused(tmp_path, refused):
    (cell,) = cells_of(models=["a.onnx"], backends=["openvino"], precisions=["int8"])
    folder = write_sweep(tmp_path / "out", [result_of(cell, 0)])
    (folder / "cells" / f"{0:016x}.json").write_text("{")
    assert f"{0:016x}.json" in refused("report", str(folder))
    assert not (folder / "report.html").exists()


def test_cells_without_an_accuracy_are_drawn_by_their_time(tmp_path):
    results = [result_of(cell, seed, labels=False) for seed, cell in enumerate(cells_of())]
    folder = write_sweep(tmp_path / "out", results)
    assert run(["report", str(folder), "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert 'id="speed-0-title"' in page
    assert 'id="front-0' not in page
    assert "more accurate" not in page


def test_two_sweeps_are_compared_by_intervals(sweep, tmp_path, capsys, refused):
    results = [result_of(cell, 100 + seed) for seed, cell in enumerate(cells_of())]
    slow = result_of(replace(results[7].cell, model="e.onnx"), 107)  # four steps slower
    results[7] = replace(slow, cell=results[7].cell)
    results[6] = replace(results[6], environment={"fingerprint": "another"})
    other = write_sweep(tmp_path / "other", results)
    found = document(sweep, capsys, "--against", str(other))
    cells = {row.key: row.cell for row in found.sweep.cells}
    changes = {(cells[each.key].model[0], cells[each.key].backend, cells[each.key].precision): each for each in found.changes}
    assert len(changes) == 7  # one failed, and one was not measured
    low, _, high = changes["a", "openvino", "int8"].time_ratio
    assert low < 1 < high
    assert changes["a", "openvino", "int8"].accuracy_change == 0
    assert changes["b", "openvino", "int8"].time_ratio[2] < 1
    assert changes["b", "openvino", "fp32"].time_ratio is None
    assert run(["report", str(sweep), "--against", str(other), "-o", str(tmp_path / "page.html")]) == 0
    assert 'id="changes"' in (tmp_path / "page.html").read_text()
    assert "no difference shown" in capsys.readouterr().out
    refused("report", str(sweep), "--against", str(tmp_path))


def test_images_whose_class_differs_are_shown_where_the_plans_images_can_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "val/images").mkdir(parents=True)
    for index in range(8):
        Image.new("RGB", (28, 28), (index, 90, 60)).save(tmp_path / f"val/images/{index}.png")
    folder = write_sweep(tmp_path / "out", [result_of(cell, seed) for seed, cell in enumerate(cells_of())])
    assert run(["report", str(folder)]) == 0
    assert "data:image/jpeg" not in (folder / "report.html").read_text()
    (tmp_path / "plan.toml").write_text('models = ["a.onnx"]\nval = "val"\n')
    assert run(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert page.count("url(data:image/jpeg;base64,") == 6
    assert page.count('class="picture flip-0"') == 4  # the INT8 cells
