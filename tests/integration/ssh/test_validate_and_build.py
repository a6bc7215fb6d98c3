"""`validate` and `build` through a real sshd."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.artifacts import read_manifest, sha256_file
from emca_deploy.cli import run
from emca_deploy.targets.settings import save_tuned, tuned_here

pytestmark = pytest.mark.usefixtures("in_threads")  # what runs here; what runs there has its processes
QUICK = ("--duration", "0.2", "--max-duration", "0.2", "--warmup", "0", "--no-telemetry", "--json")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Noise in two classes."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 20, 24, 3), np.uint8)
    for label in range(2):
        (folder / str(label)).mkdir()
        for index in range(6):
            Image.fromarray(pixels[label, index]).save(folder / str(label) / f"{index}.png")
    return folder


def validate(capfd, *words):
    code = run(["validate", *map(str, words), "--json"])
    out, err = capfd.readouterr()
    return code, json.loads(out) if out else None, err


def test_accuracy_over_there_is_that_of_here_and_notes_name_the_file_of_here(far, model, images, capfd, tmp_path):
    tuned = Path(shutil.copytree(model.parent, tmp_path / "tuned")) / model.name
    record = {"backend": "onnxruntime", "scenario": "single-stream", "values": {"threads": 1}, **tuned_here("onnxruntime")}
    save_tuned(tuned, record)
    asked = (tuned, "--data", images, "--reference", model, "--flips")
    code, there, err = validate(capfd, *asked, tmp_path / "a.json", "--target", far.target, "--logits", tmp_path / "kept.npz")
    assert code == 0, err
    assert f"note: {tuned}: " in err
    _, here, _ = validate(capfd, *asked, tmp_path / "b.json")
    for document in (there, here):
        document.pop("images_per_s", None)
    assert there == here
    with np.load(tmp_path / "kept.npz", allow_pickle=False) as kept:
        assert kept["logits"].shape == (12, 10)
    far.wait_until_nothing_runs()
    assert not list((far.cache / "logits").iterdir())
    assert not list((far.cache / "runs").iterdir())


def test_preprocessing_goes_along_and_labels_stay_here(far, model, images, capfd, tmp_path):
    files = sorted(str(path.relative_to(images)) for path in images.rglob("*.png"))
    (tmp_path / "labels.csv").write_text("name,label\n" + "".join(f"{name},{index % 10}\n" for index, name in enumerate(files)))
    said = ("--resize", "letterbox", "--pad-value", 30, "--channels", "bgr", "--interpolation", "bicubic", "--mean", 0.4)
    labels = ("--labels", tmp_path / "labels.csv", "--limit", 9)
    documents = {}
    for place in (far.target, "cpu"):
        code, documents[place], err = validate(capfd, model, "--data", images, *said, *labels, "--target", place)
        assert code == 0, err
        documents[place].pop("images_per_s")
    assert documents[far.target] == documents["cpu"]
    _, plain, _ = validate(capfd, model, "--data", images, *labels)
    assert plain["nll"] != documents["cpu"]["nll"]
    assert sum(entry["samples"] for entry in documents["cpu"]["per_class"]) == 9
    assert len([entry for entry in documents["cpu"]["per_class"] if entry["samples"]]) > 5


def test_an_engine_comes_home_with_its_manifest(far, model, tmp_path, capfd):
    output = tmp_path / "net.ort"
    code = run(["build", str(model), "--backend", "onnxruntime", "-o", str(output), "--target", far.target, "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    manifest = read_manifest(output)
    assert manifest.kind == "engine"
    assert manifest.inputs["model"] == sha256_file(model)
    assert manifest.details["built_on"] == far.target
    assert json.loads(out)["sha256"] == sha256_file(output)
    assert run(["profile", str(output), *QUICK]) == 0
    assert run(["profile", str(output), *QUICK, "--target", far.target]) == 0
    capfd.readouterr()
    far.wait_until_nothing_runs()
