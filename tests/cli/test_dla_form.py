"""`export --form dla`, and the report of `plan --dla` on its model."""

import json

from emca_deploy.cli import run


def test_an_onnx_file_and_a_checkpoint_get_the_forms(deep_model, checkpoint, tmp_path, capsys, files) -> None:
    assert run(["export", str(deep_model), "--form", "dla", "-o", str(tmp_path / "a.onnx"), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    options = ["--image-size", "32", "--form", "dla"]
    assert run(["export", str(checkpoint), *options, "-o", str(tmp_path / "b.onnx"), "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    for document in (first, second):
        assert document["dla"]["poolings"] == 11
        assert document["parity"]["max_rel"] < 1e-5
        assert [node["operator"] for node in document["dla"]["remaining"]] == ["Reshape"]
    assert files(tmp_path) == {"a.onnx", "a.onnx.manifest.json", "b.onnx", "b.onnx.manifest.json"}


def test_what_was_done_is_said(deep_model, tmp_path, capsys) -> None:
    assert run(["export", str(deep_model), "--form", "dla", "-o", str(tmp_path / "a.onnx")]) == 0
    said = capsys.readouterr().out
    assert "11 poolings, 4 bands, 1 products, 3 sums" in said
    assert "not on a DLA: head.reshape (Reshape): only changes the shape" in said


def test_fp16_is_refused(deep_model, tmp_path, capsys) -> None:
    assert run(["export", str(deep_model), "--form", "dla", "--precision", "fp16", "-o", str(tmp_path / "a.onnx")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert not list(tmp_path.iterdir())


def test_a_plan_for_a_dla_names_what_is_not_for_one_until_the_forms_are_used(deep_model, tmp_path, capsys) -> None:
    options = ["--backend", "tensorrt", "--device", "orin-nx", "--jetpack", "6.2", "--dla"]
    assert run(["plan", str(deep_model), *options]) == 0
    assert "11 GlobalAveragePool" in capsys.readouterr().out
    assert run(["export", str(deep_model), "--form", "dla", "-o", str(tmp_path / "a.onnx")]) == 0
    capsys.readouterr()
    assert run(["plan", str(tmp_path / "a.onnx"), *options]) == 0
    found = capsys.readouterr()
    assert "not for a DLA" not in found.out
    assert "global poolings run on the GPU" not in found.err
    assert "--layerPrecisions=stem.conv:fp16," in found.out
