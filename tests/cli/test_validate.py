import json

import numpy as np
import pytest
from PIL import Image

from emca_deploy.cli import run

FAKE = "fake:classes=3"


@pytest.fixture
def labelled(tmp_path):
    """A folder of three classes with four images each."""
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


def test_json_is_as_the_design_says_and_alone_on_stdout(labelled, capsys):
    assert validate(FAKE, "--data", labelled, "--reference", f"{FAKE},seed=1", "--json") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert set(document) == {"schema_version", "artifact", "samples", "top1", "top5", "reference"}
    assert (document["artifact"], document["samples"], document["top5"]) == (FAKE, 12, 100.0)
    reference = document["reference"]
    assert set(reference) == {"artifact", "top1", "top5", "agreement", "sqnr_db", "top1_drop", "top1_drop_ci95"}
    assert reference["top1_drop"] == pytest.approx(reference["top1"] - document["top1"])
    assert "ImageNet's preprocessing at 8 pixels" in err


def test_without_reference(labelled, capsys):
    assert validate(FAKE, "--data", labelled, "--json") == 0
    assert json.loads(capsys.readouterr().out)["reference"] is None


def test_against_itself_nothing_is_lost(labelled, capsys):
    assert validate(FAKE, "--data", labelled, "--reference", FAKE, "--max-drop", 0) == 0
    out = capsys.readouterr().out
    assert "drop 0.00 points" in out
    assert "same class for 100.00%, logits identical" in out


def seed_with(labelled, capsys, wanted):
    """A fake whose drop against the reference is of the wanted sign."""
    for seed in range(1, 30):
        validate(f"{FAKE},seed={seed}", "--data", labelled, "--reference", FAKE, "--json")
        drop = json.loads(capsys.readouterr().out)["reference"]["top1_drop"]
        if drop * wanted > 0:
            return f"{FAKE},seed={seed}", abs(drop)
    raise AssertionError("no such seed")


def test_gate_closes_above_its_limit_only_and_the_result_is_still_printed(labelled, capsys):
    worse, drop = seed_with(labelled, capsys, +1)
    assert validate(worse, "--data", labelled, "--reference", FAKE, "--max-drop", drop - 0.01, "--json") == 4
    out, err = capsys.readouterr()
    assert json.loads(out)["reference"]["top1_drop"] == pytest.approx(drop)
    assert "more than --max-drop" in err
    assert validate(worse, "--data", labelled, "--reference", FAKE, "--max-drop", drop + 0.01) == 0


def test_gain_passes_the_gate(labelled, capsys):
    better, _ = seed_with(labelled, capsys, -1)
    assert validate(better, "--data", labelled, "--reference", FAKE, "--max-drop", 0) == 0


def test_flat_folder_gives_agreement_only(flat, capsys):
    assert validate(FAKE, "--data", flat, "--reference", f"{FAKE},seed=1", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["top1"], document["reference"]["top1_drop"]) == (None, None)
    assert 0 <= document["reference"]["agreement"] <= 100


def test_limit_and_preprocessing(labelled, capsys):
    assert validate(FAKE, "--data", labelled, "--limit", 6, "--mean", "0,0,0", "--std", "1,1,1", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["samples"] == 6
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.onnx", "--data", "val"], 2, "missing.onnx: no such file"),
        ([FAKE, "--data", "nowhere"], 2, "nowhere"),
        ([FAKE, "--data", "val", "--reference", "missing.onnx"], 2, "missing.onnx: no such file"),
        ([FAKE, "--data", "val", "--max-drop", "1"], 2, "--reference"),
        ([FAKE, "--data", "flat"], 2, "has no labels"),
        ([FAKE, "--data", "flat", "--reference", FAKE, "--max-drop", "1"], 2, "has no labels"),
        (["fake:classes=2", "--data", "val"], 2, "label 2, but fake:classes=2 has 2 classes"),
        ([FAKE, "--data", "val", "--reference", "fake:classes=4"], 2, "logits (12, 3)"),
        ([FAKE, "--data", "val", "--image-size", "16"], 2, "16"),
        ([FAKE, "--data", "val", "--std", "0,0,0"], 2, "--std"),
        (["fake:crash_at=1,classes=3", "--data", "val"], 1, "exit code 41"),
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
