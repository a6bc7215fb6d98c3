"""Files are written whole or not at all, and manifests describe them."""

import errno
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy.artifacts import (
    Manifest,
    Preprocessing,
    atomic_write,
    manifest_path,
    read_manifest,
    sha256_file,
    this_command,
    write_json,
    write_manifest,
    write_text,
)  # fmt: skip
from emca_deploy.errors import InputError, ModelError, OutputError

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount a file system or to become another user"
)


def write_old(path: Path) -> None:
    path.write_text("old")


def test_atomic_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "model.onnx"
    write_old(path)
    with atomic_write(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".onnx"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_atomic_write_keeps_the_old_file_when_the_body_fails(tmp_path, error):
    path = tmp_path / "model.onnx"
    write_old(path)

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_gives_the_permissions_of_an_ordinary_file(tmp_path):
    path, ordinary = tmp_path / "a", tmp_path / "b"
    write_text(path, "")
    ordinary.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_atomic_write_into_a_missing_folder_says_how_to_make_it(tmp_path):
    path = tmp_path / "missing" / "out.onnx"
    with pytest.raises(OutputError) as caught:
        write_text(path, "x")
    assert str(path) in caught.value.problem
    assert f"mkdir -p {path.parent}" in caught.value.remedy
    assert caught.value.exit_code == 2


def test_atomic_write_refuses_a_folder_a_device_and_impossible_names(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    before = sorted(tmp_path.iterdir())
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(OutputError) as caught:
            write_text(path, "x")
        assert str(path) in caught.value.problem
    assert sorted(tmp_path.iterdir()) == before
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_an_error_about_another_file_is_not_blamed_on_the_output(tmp_path):
    def read_missing_input() -> None:
        with atomic_write(tmp_path / "out") as temporary:
            temporary.write_bytes((tmp_path / "input").read_bytes())

    with pytest.raises(FileNotFoundError) as caught:
        read_missing_input()
    assert caught.value.filename == str(tmp_path / "input")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_the_body_took_away_is_an_output_error(tmp_path):
    def take_away() -> None:
        with atomic_write(tmp_path / "out") as temporary:
            temporary.unlink()

    with pytest.raises(OutputError):
        take_away()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path):
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@needs_root
def test_a_full_disk_leaves_the_old_file_and_says_so(tiny_disk):
    path = tiny_disk / "out.txt"
    write_old(path)
    with pytest.raises(OutputError) as caught:
        write_text(path, "x" * 200_000)
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == errno.ENOSPC
    assert "free space" in caught.value.remedy
    assert path.read_text() == "old"
    assert list(tiny_disk.iterdir()) == [path]


@needs_root
def test_a_folder_without_permission_is_an_output_error(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = f"""
import os, sys
from pathlib import Path
from emca_deploy.artifacts import write_text
from emca_deploy.errors import OutputError
os.setuid(65534)
for path in (Path({str(closed / "out")!r}), Path("/proc/out")):
    try:
        write_text(path, "x")
    except OutputError as error:
        print(error.problem)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "Permission denied" in first
    assert str(closed / "out") in first
    assert "/proc/out: cannot be written" in second


def test_an_interrupted_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "out"
    write_old(path)
    program = (
        "import os, sys, signal; from pathlib import Path; from emca_deploy.artifacts import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_write_json_refuses_nan_before_touching_anything(tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(path, {"x": 1.5})
    assert json.loads(path.read_text()) == {"x": 1.5}


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "model.int8.onnx"
    path.write_bytes(b"graph")
    return path


MANIFEST = Manifest(
    kind="onnx",
    sha256="",
    precision="int8",
    backend="openvino",
    arch="emca_eca_resnet18",
    num_classes=10,
    preprocessing=Preprocessing(64, 72, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
    inputs={"model": "ab" * 32},
    versions={"onnx": "1.16"},
    command="emca-deploy calibrate",
    details={"layers": 3, "parity": {"max_abs": 1e-6}},
)


def test_a_manifest_comes_back_as_it_was_written(artifact):
    written = write_manifest(artifact, MANIFEST)
    assert written == replace(MANIFEST, sha256=sha256_file(artifact))
    assert manifest_path(artifact).name == "model.int8.onnx.manifest.json"
    assert read_manifest(artifact) == written


def test_a_file_without_manifest_has_none(artifact):
    assert read_manifest(artifact) is None


def test_a_changed_file_is_not_the_one_of_its_manifest(artifact):
    write_manifest(artifact, MANIFEST)
    artifact.write_bytes(b"grapH")
    with refusing(ModelError, artifact):
        read_manifest(artifact)
    unverified = read_manifest(artifact, verify=False)
    assert unverified is not None
    assert unverified.arch == "emca_eca_resnet18"


def test_a_manifest_whose_file_is_gone_is_an_input_error(artifact):
    write_manifest(artifact, MANIFEST)
    artifact.unlink()
    with refusing(InputError, artifact):
        read_manifest(artifact)


def _edited(**changes):
    def edit(text):
        return json.dumps({**json.loads(text), **changes})

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "3",
        lambda text: "[" * 200_000,
        lambda text: text.replace('"kind"', '"sort"'),
        lambda text: text.replace('"manifest_version": 1,', ""),
        _edited(manifest_version=2),
        _edited(preprocessing={"image_size": 64}),
        _edited(preprocessing="none"),
        _edited(surprise=1),
    ],
)
def test_a_damaged_manifest_is_named(artifact, damage):
    write_manifest(artifact, MANIFEST)
    place = manifest_path(artifact)
    place.write_text(damage(place.read_text()))
    with pytest.raises(ModelError) as caught:
        read_manifest(artifact)
    assert str(place) in caught.value.problem
    assert "\n" not in caught.value.problem


def test_a_manifest_of_bytes_that_are_no_text_is_named(artifact):
    manifest_path(artifact).write_bytes(b"\xff\xfe\x00")
    with refusing(ModelError, manifest_path(artifact)):
        read_manifest(artifact)


def test_sha256_file_matches_a_known_value_and_names_what_is_missing(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    for wrong in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match=str(wrong)):
            sha256_file(wrong)


def test_preprocessing_of_other_sizes_keeps_imagenets_proportion():
    assert (Preprocessing().image_size, Preprocessing().resize_size) == (224, 256)
    assert Preprocessing.for_size(224) == Preprocessing()
    assert Preprocessing.for_size(64).resize_size == 73


def test_this_command_quotes_as_a_shell_needs(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/emca-deploy", "export", "my model.pth"])
    assert this_command() == "emca-deploy export 'my model.pth'"
