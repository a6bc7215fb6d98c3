"""The wheel is small and works in a clean environment, without extras and with each extra that has wheels everywhere."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
QUICK = ("--duration", "0.2", "--max-duration", "0.2", "--warmup", "0", "--processes", "1", "--json")


def called(*command, **options):
    """Return the output of a command, which must exit with 0."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, env=environment, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    files = called("git", "ls-files", "-z", cwd=ROOT).split("\0")
    subprocess.run(["cp", "--parents", *(file for file in files if (ROOT / file).is_file()), str(source)], check=True, cwd=ROOT)
    called(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, source)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_has_what_the_package_reads_and_nothing_else(wheel):
    assert wheel.stat().st_size < 30 * 2**20
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    manual = {name for name in names if name.endswith(".data/data/share/man/man1/emca-deploy.1")}
    assert len(manual) == 1
    tracked = called("git", "ls-files", "-z", "emca_deploy", cwd=ROOT).split("\0")
    assert names - manual == {name for name in tracked if name and (ROOT / name).is_file()}


@pytest.mark.slow  # installs from a package registry, including PyTorch
@pytest.mark.parametrize("extra", ["", "export", "openvino", "report"])
def test_the_wheel_works_in_a_clean_environment(wheel, extra, tmp_path, bundled_model):
    venv.create(tmp_path / "clean", with_pip=True)
    binaries = tmp_path / "clean/bin"
    requirement = f"{wheel}[{extra}]" if extra else wheel
    called(binaries / "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", requirement)
    called(binaries / "pip", "check")
    program = binaries / "emca-deploy"
    assert "deploy" in called(program, "--help", cwd=tmp_path)
    machine = json.loads(called(program, "doctor", "--json", cwd=tmp_path))
    usable = {name for name, status in machine["backends"].items() if status["usable"]}
    assert usable == {"onnxruntime"} | ({"openvino"} & {extra}) | ({"torch"} if extra == "export" else set())
    model = bundled_model(tmp_path)
    for backend in usable - {"torch"}:
        (result,) = json.loads(called(program, "profile", model, "--backend", backend, *QUICK, cwd=tmp_path))["results"]
        assert result["backend"] == backend
        assert result["latency_ms"]["p50"] > 0
    if extra == "export":
        called(program, "export", "--random-init", "--arch", "resnet18", "--image-size", "32", "-o", "made.onnx", cwd=tmp_path)
    if extra == "report":
        called(binaries / "python", "-c", "import jinja2, emca_deploy; emca_deploy.report", cwd=tmp_path)
