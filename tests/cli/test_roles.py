"""No command overwrites a file that it reads or writes one file twice: every pair of every command's files is tested."""

import hashlib
from importlib import import_module
from itertools import permutations
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.api.file_uses import ARTIFACTS
from emca_deploy.cli import COMMANDS, run
from emca_deploy.commands._types import FileType
from emca_deploy.data.bundled import bundled_calibration_images

FOLDERS = {"folder", "timing_cache"}
FIXED = {"backend": "openvino", "device": "orin-nx", "jetpack": "6.2", "require": "p50<=1s"}


def commands():
    """Yield (words, command) of every command and subcommand."""
    for name in COMMANDS:
        command = import_module(f"emca_deploy.commands.{name.replace('-', '_')}").command
        yield (name,), command
        if isinstance(command, click.Group):
            yield from ((((name, inner)), sub) for inner, sub in command.commands.items())


def file_parameters(command):
    return {p.name: p for p in command.params if isinstance(p.type, click.Path) or p.name in ARTIFACTS}


def written(parameter):
    return isinstance(parameter.type, FileType) and parameter.type.written


def pairs():
    for words, command in commands():
        found = file_parameters(command)
        for one, other in permutations(found, 2):
            if (
                written(found[one])
                and not {one, other} & FOLDERS
                and (not written(found[other]) or one < other)
                and words[0] not in NEW_FOLDER
            ):
                yield pytest.param(words, command, one, other, id=f"{'-'.join(words)}-{one}-{other}")


NEW_FOLDER = {"deploy", "demo", "sweep"}  # the -o of these is a folder


@pytest.mark.parametrize("words_and_command", commands(), ids=lambda found: "-".join(found[0]))
def test_every_path_of_every_command_has_a_role(words_and_command):
    _, command = words_and_command
    assert {name for name, p in file_parameters(command).items() if not isinstance(p.type, FileType)} <= set(ARTIFACTS)


def tiny_model(path: Path, *, sidecar: str | None = None) -> Path:
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    nodes = [helper.make_node("Conv", ["input", "w"], ["c"], "conv"), helper.make_node("Flatten", ["c"], ["logits"], "flat")]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 128])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, [weight]), opset_imports=[helper.make_opsetid("", 20)]
    )
    if sidecar:
        onnx.save(model, path, save_as_external_data=True, location=sidecar, size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def command_line(words, command, files: dict[str, Path]) -> list[str]:
    """Return a command line with these files and the command's other required parameters."""
    arguments, options = [], []
    for p in command.params:
        if isinstance(p, click.Argument):
            arguments.append(str(files[p.name]))
        elif p.name in files and (p.required or p.name in files.chosen):
            options += [p.opts[-1], str(files[p.name])]
        elif p.required:
            options += [p.opts[-1], FIXED[p.name]]
    return [*words, *arguments, *options]


class Files(dict):
    """A file for each required parameter and for the optional ones in `chosen`."""

    chosen: frozenset = frozenset()


def make_files(folder: Path, command, chosen) -> Files:
    files = Files()
    for name in file_parameters(command):
        files[name] = tiny_model(folder / f"{name}.onnx")
    files.chosen = frozenset(chosen)
    return files


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def alias(path: Path, how: str) -> Path:
    if how == "same":
        return path
    if how == "dots":
        return path.parent / ".." / path.parent.name / path.name
    other = path.with_name(f"{how}-{path.name}")
    if how == "hardlink":
        other.hardlink_to(path)
    elif how == "symlink":
        other.symlink_to(path.name)
    else:
        folder = path.parent.with_name(path.parent.name + "-link")
        folder.symlink_to(path.parent)
        return folder / path.name
    return other


def named_twice():
    """Return every pair with the other file under the same name, and with one of the other names; at night with all names."""
    for number, pair in enumerate(pairs()):
        for index, how in enumerate(("same", "dots", "hardlink", "symlink", "folder")):
            marks = () if index in (0, 1 + number % 4) else pytest.mark.slow
            yield pytest.param(*pair.values, how, marks=marks, id=f"{pair.id}-{how}")


@pytest.mark.parametrize(("words", "command", "output", "other", "how"), named_twice())
def test_no_file_has_two_roles(words, command, output, other, how, tmp_path, refused):
    folder = tmp_path / "files"
    folder.mkdir()
    files = make_files(folder, command, {output, other})
    files[output] = alias(files[other], how)
    before = digests(folder)
    assert "overwritten" in refused(*command_line(words, command, files))
    assert digests(folder) == before


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (
            ["calibrate", "m.onnx", "--backend", "openvino", "--data", "q.onnx.manifest.json", "-o", "q.onnx"],
            "q.onnx.manifest.json",
        ),
        (["calibrate", "m.onnx", "--backend", "openvino", "--data", "x.zip", "-o", "m.ranges.json"], "m.ranges.json"),
        (["calibrate", "m.onnx", "--backend", "openvino", "--data", "m.weights.npz", "-o", "q.onnx"], "m.weights.npz"),
        (["calibrate", "m.onnx", "--backend", "openvino", "--data", "x.zip", "-o", "w.bin"], "w.bin"),
        (["calibrate", "m.onnx", "--backend", "openvino", "--data", "x", "-o", "x/a/1.png"], "x/a/1.png"),
        (["sensitivity", "m.onnx", "--backend", "openvino", "--data", "x", "-o", "m.ranges.json"], "m.ranges.json"),
        (["profile", "onnxruntime=m.onnx", "-o", "m.onnx"], "m.onnx"),
        (["profile", "a.engine+m.onnx", "-o", "m.onnx"], "m.onnx"),
        (["profile", "m.onnx", "-o", "m.onnx.manifest.json"], "m.onnx.manifest.json"),
        (["profile", "m.onnx", "-o", "w.bin"], "w.bin"),
        (["tune", "m.onnx", "-o", "m.onnx.manifest.json"], "m.onnx.manifest.json"),
        (["validate", "m.onnx", "--data", "l.npz.partial", "--logits", "l.npz"], "l.npz.partial"),
        (["layers", "m.onnx", "--plot", "w.bin"], "w.bin"),
        (["build", "m.onnx", "--backend", "openvino", "-o", "w.bin"], "w.bin"),
        (["export", "q.onnx.manifest.json", "-o", "q.onnx"], "q.onnx.manifest.json"),
        (["deploy", "model.onnx", "--data", "x.zip", "--val", "x.zip", "-o", "."], "model.onnx"),
        (["report", ".", "-o", "result.json"], "result.json"),
        (["report", ".", "-o", "m.onnx"], "m.onnx"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_derived_files_count_as_well(words, taken, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "m.onnx", sidecar="w.bin")
    Path("x/a").mkdir(parents=True)
    if not Path(taken).exists():
        Path(taken).write_bytes(b"mine")
    before = digests(tmp_path)
    assert "overwritten" in refused(*words)
    assert digests(tmp_path) == before


def test_files_of_a_usual_command_line_are_no_conflict(tmp_path, monkeypatch, capsys):
    """A repeated command whose results are next to the model passes this check; it fails later, on invalid images."""
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "m.onnx")
    for name in ("m.int8.onnx", "m.int8.onnx.manifest.json", "m.ranges.json", "m.weights.npz"):
        Path(name).write_bytes(b"of the last run")
    assert run(["calibrate", "m.onnx", "--data", ".", "--backend", "openvino", "-o", "m.int8.onnx"]) == 2
    assert "overwritten" not in capsys.readouterr().err


def test_weights_of_the_user_beside_the_model_are_left_alone(tmp_path, monkeypatch, capsys):
    """A conflict with the file of rounded weights is found before the weights are rounded."""
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "m.onnx")
    np.savez("m.weights.npz", mine=np.arange(3))
    before = digests(tmp_path)
    data = str(bundled_calibration_images())
    words = ["calibrate", "m.onnx", "--data", data, "--backend", "openvino", "--weight-bits", "8", "--method", "minmax"]
    assert run([*words, "--samples", "4", "-o", "q.onnx"]) == 2
    assert "--table" in capsys.readouterr().err.splitlines()[-1]
    assert {name: digest for name, digest in digests(tmp_path).items() if name != "m.ranges.json"} == before
