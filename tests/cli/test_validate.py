import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from emca_deploy.artifacts import read_manifest
from emca_deploy.cli import run

FAKE = "fake:classes=3"


@pytest.fixture(autouse=True)
def _threads(request):
    """Let artifacts run in this process, apart from those that end theirs."""
    if "crash" not in request.node.name:
        request.getfixturevalue("in_threads")


@pytest.fixture
def labelled(tmp_path):
    """A folder with three classes of four images each."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "val"
    for name in ("ant", "bee", "cat"):
        (folder / name).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def flat(tmp_path, labelled):
    folder = tmp_path / "flat"
    folder.mkdir()
    for index, path in enumerate(sorted(labelled.glob("*/*.png"))):
        (folder / f"{index}.png").write_bytes(path.read_bytes())
    return folder


def validate(*arguments):
    return run(["validate", *map(str, arguments), "--threads", "1"])


REPORT_KEYS = {
    "schema_version",
    "artifact",
    "samples",
    "top1",
    "top5",
    "reference",
    "mean_confidence",
    "ece",
    "nll",
    "warnings",
    "class_order",
}
REPORT_KEYS |= {"reliability", "images_per_s", "per_class", "confusion", "confused"}
REFERENCE_KEYS = {"artifact", "top1", "top5", "agreement", "sqnr_db", "top1_drop", "top1_drop_ci95", "mcnemar_p"}
REFERENCE_KEYS |= {"reliability", "mean_confidence", "ece", "nll", "flips", "typical_sqnr_db"}


def test_json_is_as_the_design_says_and_alone_on_stdout(labelled, capsys):
    assert validate(FAKE, "--data", labelled, "--reference", f"{FAKE},seed=1", "--json") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert set(document) == REPORT_KEYS
    assert (document["artifact"], document["samples"], document["top5"]) == (FAKE, 12, 100.0)
    assert document["images_per_s"] > 0
    assert [(entry["name"], entry["samples"]) for entry in document["per_class"]] == [("ant", 4), ("bee", 4), ("cat", 4)]
    assert [sum(row) for row in document["confusion"]] == [4, 4, 4]
    assert sum(document["confusion"][k][k] for k in range(3)) == round(document["top1"] * 12 / 100)
    assert all(entry["recall"] == 25 * document["confusion"][k][k] for k, entry in enumerate(document["per_class"]))
    reference = document["reference"]
    assert set(reference) == REFERENCE_KEYS
    assert reference["top1_drop"] == pytest.approx(reference["top1"] - document["top1"])
    flips = reference["flips"]
    assert flips["total"] == len(flips["images"]) == round((100 - reference["agreement"]) * 12 / 100)
    assert flips["lost"] - flips["won"] == round(reference["top1_drop"] * 12 / 100)
    assert all(flip["file"].startswith(("ant", "bee", "cat")[flip["label"]] + "/") for flip in flips["images"])
    assert err.count("note: ") == 1
    assert all(value in err for value in ("9", "8x8", "bilinear", "rgb", "mean 0.485,0.456,0.406"))


def test_without_reference(labelled, capsys):
    assert validate(FAKE, "--data", labelled, "--json") == 0
    assert json.loads(capsys.readouterr().out)["reference"] is None


def test_against_itself_nothing_is_lost(labelled, capsys):
    assert validate(FAKE, "--data", labelled, "--reference", FAKE, "--max-drop", 50) == 0
    out = capsys.readouterr().out
    assert "drop 0.00 points" in out
    assert "100.00%" in out


SEEDS: dict[int, int] = {}
"""Fakes by requested sign: the images are the same in every test, and so are the results."""


def seed_with(labelled, capsys, wanted):
    """A fake whose drop against the reference has the requested sign."""
    for seed in [SEEDS[wanted]] if wanted in SEEDS else range(1, 30):
        validate(f"{FAKE},seed={seed}", "--data", labelled, "--reference", FAKE, "--json")
        drop = json.loads(capsys.readouterr().out)["reference"]["top1_drop"]
        if drop * wanted > 0:
            SEEDS[wanted] = seed
            return f"{FAKE},seed={seed}", abs(drop)
    raise AssertionError("no such seed")


def interval_of(artifact, labelled, capsys):
    validate(artifact, "--data", labelled, "--reference", FAKE, "--json")
    reference = json.loads(capsys.readouterr().out)["reference"]
    return reference["top1_drop"], reference["top1_drop_ci95"][1]


@pytest.mark.parametrize("sign", [-1, 1])
def test_gate_is_on_the_end_of_the_interval_and_the_result_is_still_printed(labelled, capsys, sign):
    other, _ = seed_with(labelled, capsys, sign)
    drop, end = interval_of(other, labelled, capsys)
    assert drop < end
    assert validate(other, "--data", labelled, "--reference", FAKE, "--max-drop", end - 0.01, "--json") == 4
    out, err = capsys.readouterr()
    assert json.loads(out)["reference"]["top1_drop"] == pytest.approx(drop)
    assert f"{drop:.2f} points" in err
    assert f" to {end:.2f})" in err
    assert re.search(r"about [\d,]+ images", err)
    assert validate(other, "--data", labelled, "--reference", FAKE, "--max-drop", end + 0.01) == 0


def test_gate_that_the_drop_itself_is_outside_of_asks_for_no_images(labelled, capsys):
    worse, drop = seed_with(labelled, capsys, +1)
    assert validate(worse, "--data", labelled, "--reference", FAKE, "--max-drop", drop - 0.01) == 4
    err = capsys.readouterr().err
    assert not re.search(r"about [\d,]+ images", err)
    assert "calibrate --max-drop" in err


def test_logits_are_kept_and_used_again(labelled, tmp_path, capsys):
    ours, theirs = tmp_path / "ours.npz", tmp_path / "theirs.npz"
    files = ("--logits", ours, "--reference-logits", theirs)
    arguments = (FAKE, "--data", labelled, "--reference", f"{FAKE},seed=1", *files, "--json")
    assert validate(*arguments) == 0
    first = json.loads(capsys.readouterr().out)
    with np.load(ours, allow_pickle=False) as arrays:
        assert arrays["logits"].shape == (12, 3)
        assert arrays["labels"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert arrays["files"][5] == "bee/1.png"
    assert validate(*arguments) == 0
    out, err = capsys.readouterr()
    assert "note: 12 of 12 images" in err
    again = json.loads(out)
    assert again.pop("images_per_s") is None
    assert again == {name: value for name, value in first.items() if name != "images_per_s"}
    assert not list(tmp_path.glob("*.partial"))


def test_logits_of_another_run_are_neither_used_nor_overwritten(labelled, tmp_path, capsys):
    kept = tmp_path / "kept.npz"
    assert validate(FAKE, "--data", labelled, "--logits", kept) == 0
    before = kept.read_bytes()
    capsys.readouterr()
    other = ("--logits", kept, "--mean", "0", "--std", "1", "--limit", 6)
    assert validate(f"{FAKE},seed=1", "--data", labelled, *other) == 2
    assert "differs in: artifact, limit, preprocessing" in capsys.readouterr().err
    assert kept.read_bytes() == before


def test_crashed_run_goes_on_where_it_was(labelled, tmp_path, capsys):
    kept, whole, partial = (tmp_path / name for name in ("kept.npz", "whole.npz", "kept.npz.partial"))
    crashing = f"{FAKE},crash_at=3"
    key = ("--data", labelled, "--batch", 2, "--logits")
    assert validate(crashing, *key, kept) == 1
    assert not kept.exists()
    # The names make the two fakes different artifacts; a real artifact that crashes once stays the same.
    with np.load(partial) as left:
        arrays = {**left, "key": np.array(str(left["key"]).replace(crashing, FAKE))}
    with partial.open("wb") as stream:
        np.savez(stream, **arrays)
    capsys.readouterr()
    assert validate(FAKE, *key, kept, "--json") == 0
    out, err = capsys.readouterr()
    assert "note: 4 of 12 images" in err
    assert validate(FAKE, *key, whole, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert {**json.loads(out), "images_per_s": 0} == {**again, "images_per_s": 0}
    with np.load(kept) as one, np.load(whole) as other:
        np.testing.assert_array_equal(one["logits"], other["logits"])
    assert not partial.exists()


def test_flips_are_written_all(labelled, tmp_path, capsys):
    csv_file, json_file = tmp_path / "flips.csv", tmp_path / "flips.json"
    for path in (csv_file, json_file):
        assert validate(FAKE, "--data", labelled, "--reference", f"{FAKE},seed=1", "--flips", path, "--json") == 0
        flips = json.loads(capsys.readouterr().out)["reference"]["flips"]
    assert flips["total"] > 0
    with csv_file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(json.loads(json_file.read_text())) == flips["total"]
    first = flips["images"][0]
    assert (rows[0]["file"], int(rows[0]["candidate"])) == (first["file"], first["candidate"])
    assert rows[0]["candidate_name"] == ("ant", "bee", "cat")[first["candidate"]]


def test_on_a_full_disk_the_result_is_told_before_the_flips_fail(labelled, full_disk, capsys):
    flips = full_disk / "flips.csv"
    assert validate(FAKE, "--data", labelled, "--reference", f"{FAKE},seed=1", "--flips", flips, "--json") == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["reference"]["flips"]["total"] > 0
    assert f"error: {flips}: " in err
    assert [path.name for path in full_disk.iterdir()] == ["filling"]


def test_flat_folder_gives_agreement_only(flat, capsys):
    assert validate(FAKE, "--data", flat, "--reference", f"{FAKE},seed=1", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["top1"], document["reference"]["top1_drop"]) == (None, None)
    assert 0 <= document["reference"]["agreement"] <= 100


def test_limit_and_preprocessing(labelled, capsys):
    assert validate(FAKE, "--data", labelled, "--limit", 6, "--mean", "0,0,0", "--std", "1,1,1", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["samples"] == 6
    assert "assuming short side" in err
    assert "mean 0," not in err
    said = ("--resize", "squash", "--interpolation", "nearest", "--channels", "bgr", "--mean", "0", "--std", "1")
    assert validate(FAKE, "--data", labelled, *said, "--json") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.onnx", "--data", "val"], 2, "missing.onnx"),
        ([FAKE, "--data", "nowhere"], 2, "nowhere"),
        ([FAKE, "--data", "val", "--reference", "missing.onnx"], 2, "missing.onnx"),
        ([FAKE, "--data", "val", "--max-drop", "1"], 2, "--reference"),
        ([FAKE, "--data", "val", "--flips", "f.csv"], 2, "--flips"),
        ([FAKE, "--data", "val", "--reference-logits", "f.npz"], 2, "--reference-logits"),
        ([FAKE, "--data", "val", "--reference", FAKE, "--flips", "f.txt"], 2, "f.txt"),
        ([FAKE, "--data", "val", "--reference", FAKE, "--flips", "no/f.csv"], 2, "no/f.csv"),
        ([FAKE, "--data", "val", "--logits", "f.txt"], 2, "f.txt"),
        ([FAKE, "--data", "val", "--logits", "no/f.npz"], 2, "no/f.npz"),
        ([FAKE, "--data", "flat"], 2, "flat: "),
        ([FAKE, "--data", "flat", "--reference", FAKE, "--max-drop", "1"], 2, "flat: "),
        (["fake:classes=2", "--data", "val"], 2, "fake:classes=2"),
        ([FAKE, "--data", "val", "--reference", "fake:classes=4"], 2, "logits (12, 3)"),
        ([FAKE, "--data", "val", "--image-size", "16"], 2, "16"),
        ([FAKE, "--data", "val", "--std", "0,0,0"], 2, "--std"),
        pytest.param(["fake:crash_at=1,classes=3", "--data", "val"], 1, "41", id="crash"),
        ([FAKE], 2, "--data"),
    ],
)
def test_bad_input_is_two_lines_and_a_code(arguments, code, said, labelled, flat, capsys, monkeypatch):
    monkeypatch.chdir(labelled.parent)
    assert validate(*arguments) == code
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert "Traceback" not in err


@pytest.fixture
def many(tmp_path):
    """A folder with two classes of sixty small images each."""
    rng = np.random.default_rng(1)
    for name in ("ant", "bee"):
        (tmp_path / "many" / name).mkdir(parents=True)
        for index in range(60):
            Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(tmp_path / "many" / name / f"{index}.png")
    return tmp_path / "many"


def test_a_fitted_temperature_is_reported_and_kept_in_the_manifest(many, own, capsys):
    before = read_manifest(own)
    arguments = (own, "--data", many, "--reference", "fake:classes=3", "--fit-temperature", "--json")
    assert validate(*arguments) == 0
    found = json.loads(capsys.readouterr().out)["temperature"]
    assert found["fitted_images"] == found["judged_images"] == 60
    after = read_manifest(own)
    assert after == replace(before, temperature=None if found["temperature"] == 1 else found["temperature"])


def test_a_temperature_requires_a_reference_and_enough_images(labelled, capsys):
    assert validate(FAKE, "--data", labelled, "--fit-temperature") == 2
    assert "--reference" in capsys.readouterr().err
    assert validate(FAKE, "--data", labelled, "--reference", f"{FAKE},seed=1", "--fit-temperature") == 2


def test_explain_splits_the_change_over_stages(labelled, own, capsys):
    int8 = own.parent / "int8.onnx"
    words = [str(own), "--data", str(labelled), "--backend", "onnxruntime", "-o", str(int8), "--recover", "none"]
    assert run(["calibrate", *words]) == 0
    capsys.readouterr()
    arguments = (int8, "--data", labelled, "--reference", own, "--explain")
    assert validate(*arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    stages = {stage["name"]: stage for stage in found["ledger"]["stages"]}
    assert list(stages) == ["export", "graph", "weights", "clipping", "rounding", "preprocessing", "runtime"]
    assert sum(stage["top1_drop"] for stage in stages.values()) == pytest.approx(found["reference"]["top1_drop"])
    assert stages["preprocessing"]["share_percent"] == 0
    assert stages["graph"]["share_percent"] < 1e-3
    assert stages["rounding"]["share_percent"] > 1
    assert validate(*arguments, "--channels", "bgr") == 0
    assert "preprocessing" in capsys.readouterr().out


def test_explain_requires_a_reference_and_graphs(labelled, own, tmp_path, capsys):
    assert validate(own, "--data", labelled, "--explain") == 2
    assert "--reference" in capsys.readouterr().err
    assert validate(own, "--data", labelled, "--reference", FAKE, "--explain") == 2
    assert validate(FAKE, "--data", labelled, "--reference", own, "--explain") == 2
    assert "ONNX" in capsys.readouterr().err
