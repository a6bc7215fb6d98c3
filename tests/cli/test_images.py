"""Images and labels in the usual forms, on tiny networks whose predictions are right only if every step is right."""

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from emca_deploy.cli import run

SIZE = 16
pytestmark = pytest.mark.usefixtures("in_threads")


def save_net(path, levels, mean=0.485, std=0.229, scale=255, channel=0, shape=(3, SIZE, SIZE)):
    """A network whose logit k is highest where the mean of one channel's pixels is nearest to levels[k]."""
    want = (np.asarray(levels, np.float64) / scale - mean) / std
    weight = np.zeros((8, shape[0], 1, 1))
    weight[0, channel] = 1
    head = np.zeros((len(want), 8))
    head[:, 0] = 2 * want
    arrays = {"w": weight, "fc": head, "b": -want * want}
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], name="conv", kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "fc", "b"], ["logits"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(want)])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def save_shades(folder, levels, each=3, seed=0):
    """Noise images whose red channel encodes the class; `levels` are by folder name."""
    random = np.random.default_rng(seed)
    for name, level in levels.items():
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = random.integers(0, 256, (20, 20, 3))
            pixels[..., 0] = np.clip(level + random.integers(-2, 3, (20, 20)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


LEVELS = {f"c{k:02}": 10 + 20 * k for k in range(12)}


@pytest.fixture
def val(tmp_path):
    return save_shades(tmp_path / "val", LEVELS)


def call(*words):
    return run([str(word) for word in words])


@pytest.fixture
def validate(capsys):
    """Return a function that validates and returns the JSON document."""

    def measured(*words):
        capsys.readouterr()
        assert call("validate", *words, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return measured


@pytest.mark.parametrize(
    ("net", "options"),
    [
        ({"mean": 0.5, "std": 0.5}, ("--mean", 0.5, "--std", 0.5)),
        (
            {"mean": 123.675, "std": 58.395, "scale": 1},
            ("--mean", "123.675,116.28,103.53", "--std", "58.4,57.1,57.4", "--scale", 1),
        ),
        ({"channel": 2}, ("--channels", "bgr", "--mean", "0.406,0.456,0.485", "--std", "0.225,0.224,0.229")),
        ({"shape": (3, 24, 12)}, ("--resize", "squash")),
        ({}, ("--resize", "letterbox", "--interpolation", "bicubic", "--exif", "apply")),
    ],
)
def test_every_kind_of_preprocessing_makes_its_network_right(tmp_path, val, validate, net, options):
    model = save_net(tmp_path / "m.onnx", list(LEVELS.values()), **net)
    assert validate(model, "--data", val, *options)["top1"] == 100


def test_a_gray_network_takes_colour_pictures_and_gray_arrays(tmp_path, validate):
    levels = [30, 90, 150, 210]
    model = save_net(tmp_path / "m.onnx", levels, 0.5, 0.5, shape=(1, SIZE, SIZE))
    for name, level in zip("abcd", levels, strict=True):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(tmp_path / "val" / name / "0.png")
    pixels = np.repeat(np.array(levels, np.float32), SIZE * SIZE).reshape(4, 1, SIZE, SIZE)
    np.savez(tmp_path / "finished.npz", images=(pixels / 255 - 0.5) / 0.5, labels=np.arange(4))
    for data in ("val", "finished.npz"):
        assert validate(model, "--data", tmp_path / data, "--mean", 0.5, "--std", 0.5)["top1"] == 100


def test_what_calibrate_was_told_is_in_the_manifest_and_validate_takes_it_from_there(tmp_path, val, validate, capsys):
    model = save_net(tmp_path / "m.onnx", list(LEVELS.values()), 0.5, 0.5)
    said = ("--mean", 0.5, "--std", 0.5, "--resize", "squash", "--interpolation", "bicubic", "--channels", "rgb")
    words = ("--backend", "onnxruntime", "--recover", "none", "--method", "minmax", "-o", tmp_path / "q.onnx", "--json")
    other = save_shades(tmp_path / "calibration", LEVELS, seed=9)
    assert call("calibrate", model, "--data", other, *words, *said) == 0
    shown = capsys.readouterr()
    assert "assuming " not in shown.err
    assert json.loads(shown.out)["warnings"] == []
    kept = json.loads(Path(tmp_path / "q.onnx.manifest.json").read_text())["preprocessing"]
    assert (kept["mean"], kept["resize"], kept["interpolation"], kept["exif"]) == ([0.5] * 3, "squash", "bicubic", "ignore")
    assert kept["assumed"] == ["scale", "exif"]
    document = validate(tmp_path / "q.onnx", "--data", val)
    assert (document["top1"], document["warnings"]) == (100, [])
    (warning,) = validate(tmp_path / "q.onnx", "--data", other)["warnings"]
    assert "36 of 36" in warning


def test_statistics_of_pixels_up_to_255_are_refused_and_the_remedy_followed_is_right(tmp_path, val, validate, refused):
    model = save_net(tmp_path / "m.onnx", list(LEVELS.values()))
    said = refused("validate", model, "--data", val, "--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375")
    remedy = said.splitlines()[1].partition("divide by 255: ")[2].partition(";")[0].split()
    assert validate(model, "--data", val, *remedy)["top1"] == 100


def test_number_named_folders_are_taken_in_the_better_order_and_the_order_is_told(tmp_path, validate):
    names = sorted(map(str, range(12)))
    model = save_net(tmp_path / "m.onnx", [10 + 20 * k for k in range(12)])
    data = save_shades(tmp_path / "val", {name: 10 + 20 * k for k, name in enumerate(names)})
    document = validate(model, "--data", data)
    assert (document["top1"], document["class_order"], len(document["warnings"])) == (100, "string", 1)
    assert [entry["name"] for entry in document["per_class"]] == names
    said = validate(model, "--data", data, "--class-order", "string")
    assert (said["top1"], said["class_order"], said["warnings"]) == (100, None, [])
    assert validate(model, "--data", data, "--class-order", "number")["top1"] < 50


def test_a_subset_and_a_background_class_are_said_and_their_remedies_right(tmp_path, validate):
    model = save_net(tmp_path / "m.onnx", list(LEVELS.values()))
    subset = save_shades(tmp_path / "subset", {name: LEVELS[name] for name in ("c03", "c07", "c11")})
    (warning,) = validate(model, "--data", subset)["warnings"]
    assert "3 class folders" in warning
    assert "12 outputs" in warning
    (tmp_path / "map.txt").write_text("".join(f"{name} {k}\n" for k, name in enumerate(LEVELS)))
    mapped = validate(model, "--data", subset, "--class-map", tmp_path / "map.txt")
    assert (mapped["top1"], mapped["warnings"]) == (100, [])
    background = save_net(tmp_path / "bg.onnx", [-500, *LEVELS.values()])
    full = save_shades(tmp_path / "full", LEVELS)
    assert "--label-offset 1" in validate(background, "--data", full)["warnings"][0]
    shifted = validate(background, "--data", full, "--label-offset", 1)
    assert (shifted["top1"], shifted["warnings"]) == (100, [])


def test_a_flat_folder_with_a_file_of_labels(tmp_path, val, validate, refused):
    model = save_net(tmp_path / "m.onnx", list(LEVELS.values()))
    (tmp_path / "flat").mkdir()
    rows = []
    for index, path in enumerate(sorted(val.rglob("*.png"))):
        path.rename(tmp_path / "flat" / f"ILSVRC2012_val_{index:08}.png")
        rows.append((f"ILSVRC2012_val_{index:08}.png", list(LEVELS).index(path.parent.name)))
    refused("validate", model, "--data", tmp_path / "flat")
    (tmp_path / "val.txt").write_text("".join(f"{name} {label}\n" for name, label in rows))
    with (tmp_path / "val.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "class"), *((name, list(LEVELS)[label]) for name, label in rows)])
    (tmp_path / "from_one.txt").write_text("".join(f"{name} {label + 1}\n" for name, label in rows))
    for file in ("val.txt", "val.csv"):
        assert validate(model, "--data", tmp_path / "flat", "--labels", tmp_path / file)["top1"] == 100
    said = refused("validate", model, "--data", tmp_path / "flat", "--labels", tmp_path / "from_one.txt")
    remedy = said.splitlines()[1].rpartition(": ")[2].split()
    assert validate(model, "--data", tmp_path / "flat", "--labels", tmp_path / "from_one.txt", *remedy)["top1"] == 100


def test_the_root_of_a_data_set_is_refused_and_its_part_taken(tmp_path, validate, refused):
    model = save_net(tmp_path / "m.onnx", list(LEVELS.values()))
    for part in ("train", "val"):
        save_shades(tmp_path / "data" / part, LEVELS, each=1)
    said = refused("validate", model, "--data", tmp_path / "data")
    part = said.splitlines()[1].rpartition(": ")[2]
    assert validate(model, "--data", part)["top1"] == 100


def test_a_gate_on_calibration_images_is_refused_before_any_work(tmp_path, val, refused, files, capsys):
    model = save_net(tmp_path / "m.onnx", list(LEVELS.values()))
    words = ("--backend", "onnxruntime", "--recover", "none", "--method", "minmax", "-o", tmp_path / "q.onnx")
    before = files(tmp_path)
    refused("calibrate", model, "--data", val, "--val", val, "--max-drop", 50, *words)
    assert files(tmp_path) == before
    other = save_shades(tmp_path / "other", LEVELS, seed=5)
    assert call("calibrate", model, "--data", other, "--val", val, "--max-drop", 50, *words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []


def test_images_that_say_nothing_are_said_in_the_document(tmp_path, capsys):
    model = save_net(tmp_path / "m.onnx", list(LEVELS.values()))
    (tmp_path / "dark").mkdir()
    for index in range(10):
        Image.new("RGB", (20, 20)).save(tmp_path / "dark" / f"{index}.png")
    words = ("--backend", "onnxruntime", "--recover", "none", "--method", "minmax", "-o", tmp_path / "q.onnx", "--json")
    assert call("calibrate", model, "--data", tmp_path / "dark", *words) == 0
    shown = capsys.readouterr()
    (warning,) = json.loads(shown.out)["warnings"]
    assert f"warning: {warning}" in shown.err


def test_a_network_of_any_size_is_measured_calibrated_and_validated_at_the_size_that_is_said(
    tmp_path, val, validate, refused, capsys
):
    model = save_net(tmp_path / "m.onnx", list(LEVELS.values()), shape=(3, "H", "W"))
    quick = ("--duration", 0.1, "--max-duration", 0.1, "--warmup", 0, "--no-telemetry", "--threads", 1, "--json")
    words = ("--backend", "onnxruntime", "--recover", "none", "--method", "minmax", "-o", tmp_path / "q.onnx")
    other = save_shades(tmp_path / "other", LEVELS, seed=5)
    assert "--image-size" in refused("validate", model, "--data", val).splitlines()[1]
    assert "--image-size" in refused("calibrate", model, "--data", other, *words).splitlines()[1]
    assert call("profile", model, *quick, "--image-size", "12x20") == 0
    assert call("calibrate", model, "--data", other, *words, "--image-size", "12x20") == 0
    found = validate(tmp_path / "q.onnx", "--data", val, "--reference", model)
    assert (found["top1"], found["reference"]["top1"]) == (100, 100)
    assert json.loads(Path(tmp_path / "q.onnx.manifest.json").read_text())["preprocessing"]["image_size"] == [12, 20]


def test_a_first_guess_that_is_confirmed_later_is_no_guess_any_more(tmp_path, val, refused, capsys):
    model = save_net(tmp_path / "m.onnx", list(LEVELS.values()))
    words = ("calibrate", model, "--data", val, "--backend", "onnxruntime", "--method", "minmax", "-o", tmp_path / "q.onnx")
    assert call(*words) == 0
    capsys.readouterr()
    said = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--channels", "rgb", "--resize", "shortest")
    assert call(*words, *said, "--interpolation", "bilinear", "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["table_reused"]
    assert "assuming " not in shown.err
    kept = json.loads(Path(tmp_path / "q.onnx.manifest.json").read_text())["preprocessing"]
    assert kept["assumed"] == ["resize_size", "scale", "exif"]
    assert "--val" in refused(*words, "--label-offset", 1)


def test_options_that_do_nothing_to_finished_images_are_said(tmp_path, validate):
    model = save_net(tmp_path / "m.onnx", [30, 90, 150, 210])
    images = np.random.default_rng(0).standard_normal((8, 3, SIZE, SIZE)).astype(np.float32)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(8) % 4)
    assert validate(model, "--data", tmp_path / "a.npz")["warnings"] == []
    assert len(validate(model, "--data", tmp_path / "a.npz", "--mean", 0.5)["warnings"]) == 1


def test_the_gate_settles_the_order_of_number_named_folders_by_fp32(tmp_path, capsys):
    names = sorted(map(str, range(12)))
    levels = [10 + 20 * k for k in range(12)]
    model = save_net(tmp_path / "m.onnx", levels)
    val = save_shades(tmp_path / "val", dict(zip(names, levels, strict=True)))
    data = save_shades(tmp_path / "data", LEVELS, seed=5)
    words = ("--backend", "onnxruntime", "--recover", "none", "--method", "minmax", "-o", tmp_path / "q.onnx", "--json")
    assert call("calibrate", model, "--data", data, "--val", val, "--max-drop", 50, *words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["gate"]["top1_fp32"] == 100
    assert document["gate"]["warnings"] == document["warnings"]
    assert len(document["warnings"]) == 1
    assert call("calibrate", model, "--data", data, "--val", val, "--max-drop", 50, *words, "--class-order", "number") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["gate"]["top1_fp32"] < 50


def test_a_graph_that_normalises_itself_gets_plain_pixels_and_a_warning_where_it_is_given_others(tmp_path, val, validate):
    model = onnx.load(save_net(tmp_path / "m.onnx", list(LEVELS.values())))
    graph = model.graph
    graph.node[0].input[0] = "normalised"
    for name, value in (("mean", [[[123.675]], [[116.28]], [[103.53]]]), ("std", [[[58.395]], [[57.12]], [[57.375]]])):
        graph.initializer.append(numpy_helper.from_array(np.array([value], np.float32), name))
    graph.node.insert(0, helper.make_node("Div", ["centred", "std"], ["normalised"], name="div"))
    graph.node.insert(0, helper.make_node("Sub", ["images", "mean"], ["centred"], name="sub"))
    onnx.save(model, tmp_path / "own.onnx")
    found = validate(tmp_path / "own.onnx", "--data", val)
    assert (found["top1"], found["warnings"]) == (100, [])
    said = validate(tmp_path / "own.onnx", "--data", val, "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    (warning,) = said["warnings"]
    remedy = warning.rpartition(": ")[2].split()
    again = validate(tmp_path / "own.onnx", "--data", val, *remedy)
    assert (again["top1"], again["warnings"]) == (100, [])
    assert validate(tmp_path / "own.onnx", "--data", val, "--mean", 0, "--std", 1 / 255)["warnings"] == []


def test_a_gate_on_a_network_with_two_outputs_reads_the_one_that_is_named(tmp_path, val, refused, capsys):
    model = onnx.load(save_net(tmp_path / "m.onnx", list(LEVELS.values())))
    model.graph.node.append(helper.make_node("Gemm", ["f", "fc", "b"], ["other"], name="other", transB=1))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["N", len(LEVELS)]))
    onnx.save(model, tmp_path / "two.onnx")
    data = save_shades(tmp_path / "data", LEVELS, seed=5)
    fixed = ("--backend", "onnxruntime", "--recover", "none", "--method", "minmax", "-o", tmp_path / "q.onnx")
    words = ("calibrate", tmp_path / "two.onnx", "--data", data, "--val", val, "--max-drop", 50, *fixed)
    assert "--output-name" in refused(*words).splitlines()[1]
    assert call(*words, "--output-name", "other", "--json") == 0
    assert json.loads(capsys.readouterr().out)["gate"]["top1_fp32"] == 100
