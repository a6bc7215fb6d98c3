import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emca_deploy.cli import run
from emca_deploy.data.bundled import bundled_test_images
from emca_deploy.harness.accuracy import corrupted, corruption_cells
from emca_deploy.harness.accuracy.corrupted import CorruptedRun

FAKE = "fake:classes=3"
SCHEMA = Path(__file__).parents[2] / "emca_deploy/results/schemas/validate.json"
ONE = ("--threads", "1")

pytestmark = pytest.mark.usefixtures("in_threads")


@pytest.fixture
def labelled(tmp_path):
    """Three classes of two images each."""
    for name in ("ant", "bee", "cat"):
        (tmp_path / "val" / name).mkdir(parents=True)
        for index in range(2):
            pixels = np.random.default_rng(index).integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "val" / name / f"{index}.png")
    return tmp_path / "val"


def asked(capsys, *words):
    assert run(["validate", *map(str, words), *ONE]) == 0
    return capsys.readouterr().out


def test_the_bundled_model_on_corrupted_images(bundled_model, tmp_path, capsys, refused):
    jsonschema = pytest.importorskip("jsonschema")
    model = bundled_model(tmp_path)
    words = (model, "--data", bundled_test_images(), "--reference", model, "--limit", "5", "--corruptions", "contrast,jpeg")
    document = json.loads(asked(capsys, *words, "--json"))
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    found = document["corruptions"]
    assert [(kind["name"], kind["group"], len(kind["cells"])) for kind in found["kinds"]] == [
        ("contrast", "digital", 5), ("jpeg", "digital", 5)
    ]  # fmt: skip
    contrast, jpeg = found["kinds"]
    assert jpeg["top1"] > contrast["top1"]
    assert {(cell["images"], cell["drop"], cell["lost"], cell["won"]) for kind in found["kinds"] for cell in kind["cells"]} == {
        (5, 0.0, 0, 0)
    }  # fmt: skip
    assert (found["looks"], found["max_drop"]) == ([5], None)
    assert found["top1"] == pytest.approx((jpeg["top1"] + contrast["top1"]) / 2)
    assert "--corruptions" in refused("validate", *words, "--target", "ssh://nobody@nowhere.invalid/cpu")


def test_the_same_figures_twice_and_as_text(labelled, capsys):
    words = (FAKE, "--data", labelled, "--reference", f"{FAKE},seed=1", "--corruptions", "camera")
    first, second = (json.loads(asked(capsys, *words, "--json"))["corruptions"] for _ in range(2))
    assert first == second
    lines = asked(capsys, *words).splitlines()
    table = lines[[line.startswith("corrupted: 25 cells") for line in lines].index(True) :]
    assert max(map(len, table)) <= 80
    assert {line.split()[0] for line in table[-5:]} == {kind["name"] for kind in first["kinds"]}
    assert table[-5].split()[0] == first["worst_kind"]


def test_both_models_see_the_same_images_and_cells_have_a_verdict(labelled, capsys, monkeypatch):
    seen = []
    real = CorruptedRun._classes

    def spied(self, worker, path, side):
        with np.load(path) as arrays:
            seen.append(arrays["images"])
        return real(self, worker, path, side)

    monkeypatch.setattr(CorruptedRun, "_classes", spied)
    words = (FAKE, "--data", labelled, "--reference", f"{FAKE},seed=1", "--max-drop", "100", "--corruptions", "snow", "--json")
    found = json.loads(asked(capsys, *words))["corruptions"]
    assert len(seen) == 10
    assert all((own == other).all() for own, other in zip(seen[::2], seen[1::2], strict=True))
    rgb = seen[:]
    seen.clear()
    asked(capsys, *words, "--channels", "bgr")
    assert all((own == other).all() for own, other in zip(seen, rgb, strict=True))
    assert {cell["verdict"] for cell in found["kinds"][0]["cells"]} == {"within"}


def test_the_option_alone_means_all(labelled, capsys):
    found = json.loads(asked(capsys, FAKE, "--data", labelled, "--reference", FAKE, "--limit", "1", "--corruptions", "--json"))
    assert len(found["corruptions"]["kinds"]) == 20


def test_refusals(labelled, tmp_path, refused):
    words = ("validate", FAKE, "--data", labelled, "--reference", FAKE, *ONE, "--corruptions")
    assert "nearest: fog" in refused(*words, "fogg")
    assert "--reference" in refused("validate", FAKE, "--data", labelled, "--corruptions", "fog")
    flat = tmp_path / "flat"
    flat.mkdir()
    (labelled / "ant" / "0.png").rename(flat / "0.png")
    assert "labels" in refused("validate", FAKE, "--data", flat, "--reference", FAKE, "--corruptions")
    np.savez(tmp_path / "ready.npz", images=np.zeros((3, 3, 8, 8), np.float32), labels=np.arange(3))
    assert "ready.npz" in refused("validate", FAKE, "--data", tmp_path / "ready.npz", "--reference", FAKE, "--corruptions")


def test_an_interrupt_leaves_nothing_behind(labelled, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(CorruptedRun, "_classes", interrupted)
    kept = tmp_path / "kept.npz"
    assert (
        run(["validate", FAKE, "--data", str(labelled), "--reference", FAKE, "--corruptions", "fog", "--logits", str(kept)])
        == 130
    )
    assert list((tmp_path / "tmp").iterdir()) == []
    assert kept.exists()


def test_several_looks_and_files_give_the_same_counts_as_one(labelled, capsys, monkeypatch):
    words = (FAKE, "--data", labelled, "--reference", f"{FAKE},seed=1", "--corruptions", "snow,banding", "--json")
    kinds = json.loads(asked(capsys, *words))["corruptions"]["kinds"]
    monkeypatch.setattr(corruption_cells, "FIRST_LOOK", 1)
    monkeypatch.setattr(corrupted, "PIECE_BYTES", 8 * 8 * 3)  # one image
    found = json.loads(asked(capsys, *words))["corruptions"]
    assert found["looks"] == [1, 2, 4, 6]
    counts = ("images", "lost", "won", "top1", "reference_top1")
    assert [[cell[name] for name in counts] for kind in found["kinds"] for cell in kind["cells"]] == [
        [cell[name] for name in counts] for kind in kinds for cell in kind["cells"]
    ]
