"""`emca-deploy calibrate` as a user runs it."""

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from emca_deploy._machine import CpuInfo
from emca_deploy.cli import run


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def data(shared, flat_images, labelled_images):
    """Paths of the same kind of images, by form."""
    images = np.random.default_rng(3).integers(0, 256, (9, 40, 40, 3), np.uint8)
    np.savez(shared / "bytes.npz", images=images)
    np.savez(shared / "floats.npz", images=np.random.default_rng(4).standard_normal((9, 3, 32, 32)).astype(np.float32))
    with zipfile.ZipFile(shared / "images.zip", "w") as archive:
        for path in sorted(labelled_images.rglob("*.png")):
            archive.write(path, path.relative_to(labelled_images))
    return {
        "folder": flat_images,
        "labelled folder": labelled_images,
        "zip": shared / "images.zip",
        "npz of bytes": shared / "bytes.npz",
        "npz of floats": shared / "floats.npz",
    }


def arguments(model: Path, data: object, output: Path, *more: object) -> list[str]:
    backend = [] if "--backend" in more else ["--backend", "openvino"]
    quick = ["--threads", "1"]
    for option, fastest in (("--recover", "none"), ("--method", "minmax")):
        quick += [] if option in more else [option, fastest]
    return [str(a) for a in ("calibrate", model, "--data", data, "-o", output, *backend, *quick, *more)]


@pytest.mark.parametrize("form", ["folder", "labelled folder", "zip", "npz of bytes", "npz of floats"])
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_every_kind_of_data_for_both_backends(own, data, out, files, capsys, form, backend):
    output = out / "int8.onnx"
    assert run(arguments(own, data[form], output, "--backend", backend, "--method", "minmax", "--samples", 6, "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["onnx"], document["backend"], document["method"]) == (str(output), backend, "minmax")
    assert (document["samples"], document["table_reused"]) == (6, False)
    assert document["quantized"]["weighted_operators"] == 13  # 12 convolutions and the head
    assert document["quantized"]["float_operators"] == 4  # the attention's layers
    onnx.checker.check_model(str(output), full_check=True)
    manifest = json.loads(Path(f"{output}.manifest.json").read_text())
    table = Path(document["table"])
    assert (manifest["precision"], manifest["backend"], manifest["sha256"]) == ("int8", backend, sha256(output))
    assert manifest["inputs"]["model"] == sha256(own)
    assert manifest["inputs"]["calibration_table"] == sha256(table)
    assert manifest["preprocessing"] == json.loads(Path(f"{own}.manifest.json").read_text())["preprocessing"]
    assert files(out) == {"int8.onnx", "int8.onnx.manifest.json"}
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    assert sqnr_db(own, output, images) > 15


def sqnr_db(reference: Path, candidate: Path, images: np.ndarray) -> float:
    first, second = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]
        for path in (reference, candidate)
    )
    return float(10 * np.log10((first**2).sum() / ((first - second) ** 2).sum()))


def test_the_next_backend_reuses_the_table_and_other_images_do_not(own, data, out, capsys):
    assert run(arguments(own, data["folder"], out / "a.onnx", "--samples", 5)) == 0
    first = capsys.readouterr().out
    assert "measured on 5 images" in first
    table = own.with_name("model.ranges.json")
    stamp = table.stat().st_mtime_ns
    assert run(arguments(own, data["folder"], out / "b.onnx", "--samples", 5, "--backend", "onnxruntime")) == 0
    assert f"reused from {table}" in capsys.readouterr().out
    assert table.stat().st_mtime_ns == stamp
    assert run(arguments(own, data["zip"], out / "c.onnx", "--samples", 5)) == 0
    assert "measured on" in capsys.readouterr().out


def test_a_table_by_name_is_written_reused_and_refused_for_another_model(own, data, out, refused, files, capsys):
    table = out / "t.json"
    assert run(arguments(own, data["folder"], out / "a.onnx", "--table", table)) == 0
    assert run(arguments(own, data["folder"], out / "b.onnx", "--table", table)) == 0
    assert "reused" in capsys.readouterr().out
    assert not own.with_name("model.ranges.json").exists()
    proto = onnx.load(own)
    proto.doc_string = "another model"
    onnx.save(proto, out / "other.onnx")
    before = files(out)
    said = refused(*arguments(out / "other.onnx", data["npz of floats"], out / "c.onnx", "--table", table))
    assert str(table) in said
    assert "another model and data set" in said
    assert files(out) == before


def test_few_images_are_all_used_where_images_would_be_drawn(own, data, out, capsys, refused):
    assert run(arguments(own, data["folder"], out / "a.onnx", "--samples", "auto")) == 0
    shown = capsys.readouterr()
    assert "note" in shown.err
    assert f"{data['folder']} has 10 images" in shown.err
    assert "images: all 10 were used" in shown.out
    for wrong in ("many", "0", "1.5"):
        assert wrong in refused(*arguments(own, data["folder"], out / "b.onnx", "--samples", wrong))


def test_fewer_images_than_asked_for_are_said_on_stderr(own, data, out, capsys):
    assert run(arguments(own, data["folder"], out / "a.onnx", "--samples", 11, "--json")) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["samples"] == 10
    notes = [line for line in shown.err.splitlines() if line.startswith("note") and "--weight-bits" not in line]
    assert [note for note in notes if f"{data['folder']} has 10 images, fewer than --samples 11" in note] == notes[:1]
    assert ["assuming " in note for note in notes] == [False, True]


@pytest.mark.parametrize(("asked", "told"), [(None, True), ("7", False), ("8", False)])
def test_weights_of_seven_bits_are_told_where_nobody_asked_for_them(own, data, out, capsys, monkeypatch, asked, told):
    monkeypatch.setattr("emca_deploy.calibration.placement.recipe.cpu_info", lambda: CpuInfo("old", "x86_64", 1, 1, ("avx2",)))
    more = ["--weight-bits", asked] if asked else []
    assert run(arguments(own, data["folder"], out / "a.onnx", "--samples", 4, *more, "--json")) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["weight_bits"] == int(asked or 7)
    assert ("--weight-bits 8" in shown.err) is told


def test_keep_float_leaves_nodes_alone(own, data, out, capsys):
    patterns = ["--keep-float", "stage1.*", "--keep-float", "head"]
    assert run(arguments(own, data["folder"], out / "a.onnx", *patterns, "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["quantized"]["weighted_operators"] == 13 - 2 - 1
    readers = {node.name: node.input[1] for node in onnx.load(out / "a.onnx").graph.node if node.op_type in {"Conv", "Gemm"}}
    assert readers["stage1.block0.conv1"] == "stage1.block0.conv1.weight"
    assert readers["stage2.block0.conv1"].endswith("/dequantized")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backend", "openvin"], "nearest: openvino"),
        (["--method", "percentil"], "'percentil'"),
        (["--keep-float", "stage9.*"], "--keep-float stage9.*: "),
        (["--samples", "0"], "--samples"),
        (["--threads", "0"], "--threads"),
        (["--float-precision", "fp16"], "fp16"),
        (["--float-precision", "bf16"], "--float-precision"),
    ],
)
def test_wrong_options_are_refused(own, data, out, tmp_path, refused, files, options, words):
    before = files(tmp_path)
    assert words in refused(*arguments(own, data["folder"], out / "a.onnx", *options))
    assert files(tmp_path) == before


def test_models_that_cannot_be_quantized_are_refused(own, data, out, refused, files, tmp_path):
    whole = own.read_bytes()
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "empty.onnx").touch()
    (inputs / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (inputs / "text.onnx").write_text("this is no model")
    (inputs / "folder.onnx").mkdir()
    before = files(inputs)
    for name, words in (
        ("missing.onnx", "no such file"),
        ("empty.onnx", ""),
        ("truncated.onnx", "truncated"),
        ("text.onnx", "not an ONNX file"),
        ("folder.onnx", ""),
    ):
        said = refused(*arguments(inputs / name, data["folder"], out / "a.onnx"))
        assert str(inputs / name) in said
        assert words in said
    assert files(inputs) == before
    assert files(out) == set()


def test_an_int8_model_is_refused(own, data, out, refused, files):
    assert run(arguments(own, data["folder"], out / "a.onnx", "--samples", 1)) == 0
    before = files(out)
    assert "quantized already" in refused(*arguments(out / "a.onnx", data["folder"], out / "b.onnx"))
    assert files(out) == before


def test_a_model_that_is_not_what_its_manifest_says_is_refused(own, data, out, refused, tmp_path):
    other = tmp_path / "changed.onnx"
    proto = onnx.load(own)
    proto.doc_string = "changed"
    onnx.save(proto, other)
    shutil.copy(f"{own}.manifest.json", f"{other}.manifest.json")
    assert "sha256 differs" in refused(*arguments(other, data["folder"], out / "b.onnx"))


@pytest.fixture(
    params=[
        "missing", "empty folder", "empty npz", "NaN", "misshapen", "another size", "objects", "truncated npz",
        "unreadable image", "truncated image", "escaping zip", "truncated zip", "text file",
    ]
)  # fmt: skip
def bad_data(request, tmp_path, flat_images, data):  # noqa: C901
    """A data set that must be refused, and the words of the message."""
    folder = tmp_path / "bad"
    folder.mkdir()
    floats = np.zeros((4, 3, 32, 32), np.float32)
    path, words = folder / "x.npz", ""
    match request.param:
        case "missing":
            path, words = folder / "nothing", "No such file"
        case "empty folder":
            path, words = folder, "has no images"
        case "empty npz":
            np.savez(path, images=floats[:0])
            words = "has no images"
        case "NaN":
            floats[2, 0, 5, 5] = np.nan
            np.savez(path, images=floats)
            words = "image 2"
        case "misshapen":
            np.savez(path, images=floats[:, 0])
            words = "(4, 32, 32)"
        case "another size":
            np.savez(path, images=np.zeros((4, 3, 16, 16), np.float32))
            words = "16x16"
        case "objects":
            np.savez(path, images=np.array([{"a": 1}], object))
            words = "Python objects"
        case "truncated npz":
            path.write_bytes(data["npz of floats"].read_bytes()[:5000])
        case "unreadable image":
            path, words = folder, "broken.png"
            (folder / "broken.png").write_bytes(b"this is no image")
        case "truncated image":
            path, words = folder, "cut.png"
            whole = next(flat_images.glob("*.png")).read_bytes()
            (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
        case "escaping zip":
            path, words = folder / "x.zip", "../escaped.png"
            with zipfile.ZipFile(path, "w") as archive:
                archive.write(next(flat_images.glob("*.png")), "../escaped.png")
        case "truncated zip":
            path = folder / "x.zip"
            path.write_bytes(data["zip"].read_bytes()[:-100])
        case "text file":
            path = folder / "list.txt"
            path.write_text("a.png\n")
    return path, words


def test_bad_data_is_refused_and_leaves_nothing(bad_data, own, out, tmp_path, refused, files):
    path, words = bad_data
    before = files(tmp_path)
    said = refused(*arguments(own, path, out / "a.onnx"))
    assert str(path) in said
    assert words in said
    assert files(tmp_path) == before


def test_outputs_that_cannot_be_written_are_refused(own, data, tmp_path, refused, files):
    before = files(tmp_path)
    for output, words in ((tmp_path / "missing" / "x.onnx", "mkdir -p"), (tmp_path, "is a folder")):
        said = refused(*arguments(own, data["folder"], output, "--samples", 1))
        assert str(output.parent) in said
        assert words in said
    assert files(tmp_path) <= before | {"model/model.ranges.json"}


def test_a_full_disk_leaves_nothing(own, data, small_disk, refused, files):
    (small_disk / "filler").write_bytes(bytes((1 << 20) - (1 << 17)))
    said = refused(*arguments(own, data["folder"], small_disk / "int8.onnx", "--samples", 1))
    assert str(small_disk / "int8.onnx") in said
    assert "free space" in said
    assert files(small_disk) == {"filler"}


def test_a_table_on_a_full_disk_leaves_nothing(own, data, out, small_disk, refused, files):
    (small_disk / "filler").write_bytes(bytes((1 << 20) - 4096))
    said = refused(*arguments(own, data["folder"], out / "int8.onnx", "--samples", 1, "--table", small_disk / "t.json"))
    assert str(small_disk / "t.json") in said
    assert files(small_disk) == {"filler"}
    assert files(out) == set()


CACHE = ["--backend", "tensorrt", "--tensorrt-version", "10.3.0"]


def test_a_calibration_cache_for_tensorrt(own, data, out, files, capsys):
    from zoo.calibration_caches import read_cache

    cache = out / "model.cache"
    assert run(arguments(own, data["folder"], out / "a.onnx", *CACHE, "--cache", cache, "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    version, scales = read_cache(cache)
    assert version == "100300"
    assert document["cache"] == {"path": str(cache), "scales": len(scales), "tensorrt_version": "10.3.0"}
    names = {output for node in onnx.load(own).graph.node for output in node.output}
    assert scales.keys() <= names
    assert files(out) == {"a.onnx", "a.onnx.manifest.json", "model.cache"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cache", "x.cache", "--backend", "tensorrt"], "--tensorrt-version"),
        (CACHE, "--tensorrt-version"),
        (["--cache", "x.cache", "--tensorrt-version", "10.3.0"], "'openvino'"),
        ([*CACHE, "--cache", "x.cache", "--keep-float", "head"], "--keep-float"),
        (["--backend", "tensorrt", "--cache", "x.cache", "--tensorrt-version", "11.0.0"], "11.0.0"),
        (["--backend", "tensorrt", "--cache", "x.cache", "--tensorrt-version", "8.6"], "8.6"),
        ([*CACHE, "--cache", "none/x.cache"], "mkdir -p"),
    ],
)
def test_caches_that_cannot_be_are_refused_before_any_work(own, data, tmp_path, out, refused, files, options, words):
    before = files(tmp_path)
    placed = [str(tmp_path / option) if option.endswith(".cache") else option for option in options]
    assert words in refused(*arguments(own, data["folder"], out / "a.onnx", *placed))
    assert files(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a file system")
def test_a_read_only_folder_is_said_before_the_work_and_the_remedy_works(own, flat_images, tmp_path, refused):
    folder = tmp_path / "ro"
    folder.mkdir()
    model = folder / own.name
    for path in (own, Path(f"{own}.manifest.json")):
        shutil.copy(path, folder)
    mounted = subprocess.run(["mount", "--bind", str(folder), str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("cannot mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        command = ["calibrate", model, "--data", flat_images, "--backend", "openvino", "--method", "minmax", "--recover", "none"]
        said = refused(*command, "-o", tmp_path / "q.onnx")
        assert "--table" in said.splitlines()[1]
        assert "measuring" not in said
        assert run([*map(str, command), "-o", str(tmp_path / "q.onnx"), "--table", str(tmp_path / "t.ranges.json")]) == 0
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert (tmp_path / "q.onnx").is_file()
