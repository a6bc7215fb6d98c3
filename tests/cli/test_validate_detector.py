"""`validate` of a detector, end to end, on ONNX Runtime and OpenVINO."""

import csv
import json
import zipfile

import numpy as np
import pytest
from coco_scenes import coco_stats, scene_document, write_document
from detector_graphs import write_detector
from PIL import Image

from emca_deploy.cli import run
from emca_deploy.results.codec import from_json
from emca_deploy.results.detection import DetectionReport

pytest.importorskip("pycocotools")

LETTERBOX = ("--resize", "letterbox", "--pad", "end", "--pad-value", "mean")
IMAGES = 12


pytestmark = pytest.mark.usefixtures("in_threads")  # ssh/test_detector.py has processes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Return a folder with images, annotations whose objects are what the detector finds, and the detector itself."""
    folder = tmp_path_factory.mktemp("scenes")
    document = scene_document(IMAGES, 2)
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for image in document["images"]:
        pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
        made = Image.fromarray(pixels).resize((image["width"], image["height"]))
        made.save(folder / "images" / image["file_name"])
    write_detector(folder / "model.onnx")
    write_detector(folder / "noisy.onnx", noise=3.0)
    write_detector(folder / "boxes.onnx", masks=False)
    write_document(folder, document)
    return folder


@pytest.fixture(scope="module")
def found(scenes):
    """Return the scenes with annotations close to the model's own detections, with which AP means something."""
    document = json.loads((scenes / "annotations.json").read_text())
    document["annotations"] = []
    kept = detections(scenes, "model.onnx", scenes / "annotations.json")
    rng = np.random.default_rng(1)
    texts = kept.mask_texts()
    for image, rows in zip(document["images"], kept.rows(), strict=True):
        for row in range(rows.start, min(rows.stop, rows.start + 5)):
            x1, y1, x2, y2 = (kept.boxes[row] + rng.normal(0, 1.0, 4)).tolist()
            mask = {"size": [image["height"], image["width"]], "counts": texts[row].decode()}
            ids = {"id": len(document["annotations"]), "image_id": image["id"]}
            one = {**ids, "category_id": (3, 7, 8, 90)[kept.labels[row]], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            document["annotations"].append({**one, "area": (x2 - x1) * (y2 - y1), "segmentation": mask})
    (scenes / "found.json").write_text(json.dumps(document))
    return scenes


def detections(folder, model, annotations, scenes=None):
    from emca_deploy.npz import read_arrays
    from emca_deploy.tasks.detections import Detections

    keep = folder / f"{model}.npz"
    assert run(["validate", str(folder / model), *asking(scenes or folder, annotations), "--logits", str(keep), "--json"]) == 0
    return Detections.from_arrays(read_arrays(keep))


def asking(scenes, annotations):
    return ["--data", str(scenes / "images"), "--annotations", str(annotations), *LETTERBOX, "--threads", "1"]


def document_of(capsys, *arguments, code=0):
    capsys.readouterr()
    assert run([*map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_figures_are_those_of_cocoeval(found, capsys, backend):
    pytest.importorskip(backend)
    annotations = found / "found.json"
    document = document_of(
        capsys, "validate", found / "model.onnx", "--backend", backend, *asking(found, annotations),
        "--reference", found / "noisy.onnx", "--flips", found / "flips.csv",
    )  # fmt: skip
    report = from_json(DetectionReport, document)
    truth = json.loads(annotations.read_text())
    for kind, figures in (("box", report.box), ("mask", report.mask)):
        stats, _ = coco_stats(truth, detections(found, "model.onnx", annotations), kind)
        assert figures.ap == pytest.approx(100 * stats[0], abs=0.02 if backend == "openvino" else 1e-6)
        assert figures.ap > 20
    against = report.reference
    assert against.box_ap_drop < 0
    assert against.flips.lost + against.flips.gained > 0
    rows = list(csv.DictReader((found / "flips.csv").open()))
    assert len(rows) == against.flips.lost + against.flips.gained
    assert {row["kind"] for row in rows} <= {"lost", "gained"}
    assert {row["label_name"] for row in rows} <= {"kind 3", "kind 7", "kind 8", "kind 90"}


def test_a_zip_and_a_part_of_the_images(found, capsys):
    archive = found / "images.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in (found / "images").iterdir():
            packed.write(path, f"val/{path.name}")
    arguments = ("validate", found / "model.onnx", *asking(found, found / "found.json"))
    whole = document_of(capsys, *arguments)
    packed = document_of(capsys, *arguments, "--data", archive)
    assert {**packed, "images_per_s": None} == {**whole, "images_per_s": None}
    part = document_of(capsys, *arguments, "--limit", 5)
    assert part["samples"] == 5
    assert 0 < part["objects"] < whole["objects"]


def test_an_interrupted_run_continues(found, capsys, monkeypatch):
    """Stop after some batches; the second run does only the rest, and gives the same figures."""
    from emca_deploy.harness.accuracy import collection
    from emca_deploy.harness.accuracy.logits_store import partial_path

    keep = found / "kept.npz"
    arguments = ("validate", found / "model.onnx", *asking(found, found / "found.json"))
    whole = document_of(capsys, *arguments)
    original = collection.LogitsStore.keep
    calls = []

    def interrupted(self, answers):
        original(self, answers)
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(collection.LogitsStore, "keep", interrupted)
        assert run([*map(str, arguments), "--logits", str(keep)]) == 130
    assert partial_path(keep).exists()
    again = document_of(capsys, *arguments, "--logits", keep)
    assert {**again, "images_per_s": None} == {**whole, "images_per_s": None}
    assert not partial_path(keep).exists()


def test_the_gate(found, capsys):
    arguments = ["validate", str(found / "noisy.onnx"), *asking(found, found / "found.json")]
    arguments += ["--reference", str(found / "model.onnx"), "--max-drop"]
    assert run([*arguments, "0.5"]) == 4
    assert "box AP" in capsys.readouterr().err
    assert run([*arguments, "100"]) == 0
    assert "drop of box AP" in capsys.readouterr().out


def test_without_annotations_a_reference_is_enough(found, capsys):
    arguments = ["validate", str(found / "noisy.onnx"), "--data", str(found / "images"), *LETTERBOX]
    document = document_of(capsys, *arguments, "--reference", found / "model.onnx")
    assert document["box"] is None
    assert 0 < document["reference"]["agreement"] < 100
    assert run(arguments) == 2
    assert "--annotations" in capsys.readouterr().err
    assert run([*arguments, "--reference", str(found / "model.onnx"), "--max-drop", "1"]) == 2


def test_a_network_without_masks(found, capsys):
    document = document_of(capsys, "validate", found / "boxes.onnx", *asking(found, found / "found.json"))
    assert document["mask"] is None
    assert document["box"]["ap"] > 20


def refused(capsys, code, *arguments, named=()):
    capsys.readouterr()
    assert run(list(map(str, arguments))) == code
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert all(str(one) in text for one in named), text


def test_bad_annotations_are_refused(found, tmp_path, capsys):
    document = json.loads((found / "found.json").read_text())
    document["images"][3]["file_name"] = "gone.png"
    missing = tmp_path / "missing.json"
    missing.write_text(json.dumps(document))
    refused(capsys, 2, "validate", found / "model.onnx", *asking(found, missing), named=["gone.png"])
    document = json.loads((found / "found.json").read_text())
    image = document["images"][3]
    image["height"], image["width"] = image["width"] + 1, image["height"]
    for one in document["annotations"]:
        one.pop("segmentation")
    turned = tmp_path / "turned.json"
    turned.write_text(json.dumps(document))
    refused(capsys, 2, "validate", found / "model.onnx", *asking(found, turned), named=[image["file_name"], "turned.json"])
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{")
    refused(capsys, 2, "validate", found / "model.onnx", *asking(found, damaged), named=["damaged.json"])


def test_a_classifier_and_a_detector_are_not_mixed_up(found, small_classifier, capsys):
    annotations = asking(found, found / "found.json")
    refused(capsys, 2, "validate", small_classifier, *annotations, "--image-size", 64, named=["classifier"])
    corrupted = ("--reference", found / "model.onnx", "--corruptions")
    refused(capsys, 2, "validate", found / "model.onnx", *annotations, *corrupted, named=["--corruptions"])
    reference = ("--reference", small_classifier)
    refused(capsys, 2, "validate", found / "model.onnx", *annotations, *reference, named=[small_classifier.name])
    (found / "classes" / "a").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9)).save(found / "classes" / "a" / "1.png")
    refused(capsys, 2, "validate", found / "model.onnx", "--data", found / "classes", named=["annotations"])
    labels = ("--labels", found / "labels.csv", *reference)
    refused(
        capsys, 2, "validate", found / "model.onnx", "--data", found / "classes", *labels, named=["model.onnx", "annotations"]
    )


@pytest.fixture
def small_classifier(tmp_path):
    import onnx

    text = (
        '<ir_version: 8, opset_import: ["" : 17]> agraph (float[N,3,64,64] images) => (float[N,4] y) '
        "<float[3,4] w = {1,2,3,4,5,6,7,8,9,10,11,12}> { p = GlobalAveragePool(images) f = Flatten(p) y = MatMul(f, w) }"
    )
    path = tmp_path / "classifier.onnx"
    onnx.save(onnx.parser.parse_model(text), str(path))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["retinanet_eca_resnet18_fpn", "mask_rcnn_eca_resnet18_fpn"])
def test_the_dense_part_and_the_host_find_what_the_whole_file_finds(scenes, tmp_path, arch):
    pytest.importorskip("torch")
    found = {}
    for part in ("full", "dense"):
        model = tmp_path / f"{part}.onnx"
        export = ["export", "--arch", arch, "--random-init", "--num-classes", "4", "--image-size", "64", "--part", part]
        assert run([*export, "-o", str(model)]) == 0
        found[part] = detections(tmp_path, model.name, scenes / "annotations.json", scenes)
    assert len(found["full"].scores) > 0
    assert found["dense"].counts.tolist() == found["full"].counts.tolist()
    np.testing.assert_allclose(found["dense"].scores, found["full"].scores, atol=1e-4)
    np.testing.assert_allclose(found["dense"].boxes, found["full"].boxes, atol=0.05)
