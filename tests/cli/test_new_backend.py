"""A backend in its own distribution, as a new developer adds one: found through its entry point, available in every command."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emca_deploy import cli
from emca_deploy.backends import records
from emca_deploy.backends.registry import available

RECORD = """
from emca_deploy.backends.backend import Backend, Package

BACKEND = Backend(
    "toy",
    Package("toy_backend", "toy-backend", "1.0"),
    runner="toy_backend.runner:ToyRunner",
    builder="toy_backend.runner:ToyBuilder",
    engine_suffix=".toy",
    recipe="toy_backend.recipe:RECIPE",
    reads_onnx=True,
    settings={"arena": (False, True)},
    tunables="toy_backend.runner:tunables",
)
"""

RUNNER = '''
import shutil
from pathlib import Path

import onnxruntime

from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.base import Runner
from emca_deploy.backends.boundary import Boundary, graph_facts
from emca_deploy.backends.engines import EngineBuilder, identify
from emca_deploy.results.tuning import Tunable


class ToyRunner(Runner):
    """The reference interpreter of this backend: ONNX Runtime without its optimiser."""

    def __init__(self, artifact, options):
        self._path, self._options = Path(artifact), options

    def open(self):
        identify(self._path, "toy")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self._options.threads
        settings.enable_cpu_mem_arena = self._options.settings.get("arena", True)
        self._session = onnxruntime.InferenceSession(self._path.read_bytes(), settings, providers=["CPUExecutionProvider"])
        found = [
            [TensorSpec(one.name, "float32", tuple(one.shape)) for one in each]
            for each in (self._session.get_inputs(), self._session.get_outputs())
        ]
        self._boundary = Boundary.of(self._path, *found, graph_facts(self._path, self._options.io))
        self.input, self.output = self._boundary.input, self._boundary.output

    def infer(self, batch):
        native = self._boundary.to_native(batch)
        return self._boundary.to_logits(self._session.run([self.output.name], {self.input.name: native})[0])

    def close(self):
        self._session = None

    def describe(self):
        return {"runtime": "toy", "threads": self._options.threads}


class ToyBuilder(EngineBuilder):
    backend = "toy"

    def compile(self, model, output, options):
        shutil.copyfile(model, output)
        return "toy", "1.0"


def tunables(situation):
    return [Tunable("arena", True, (False,))]
'''

RECIPE = """
from emca_deploy.calibration.placement.recipe import Recipe

RECIPE = Recipe("toy", symmetric=False, integer_bias=False, readers=frozenset({"MaxPool"}), residual="none", on_cpu=True)
"""

BROKEN = "raise ImportError('its library is too old')"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip installs it, with two distributions; the second one cannot be loaded."""
    folder = tmp_path_factory.mktemp("site")
    package = folder / "toy_backend"
    package.mkdir()
    for name, text in (("__init__", RECORD), ("runner", RUNNER), ("recipe", RECIPE)):
        (package / f"{name}.py").write_text(text)
    (folder / "broken_backend.py").write_text(BROKEN)
    for name, value in (("toy", "toy_backend:BACKEND"), ("broken", "broken_backend:BACKEND")):
        info = folder / f"{name}_backend-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-backend\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[emca_deploy.backends]\n{name} = {value}\n")
    return folder


@pytest.fixture(scope="module")
def run(site: Path) -> Callable[..., str]:
    def command(*arguments: object) -> str:
        path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")]), str(Path(__file__).parents[2])])
        command = [sys.executable, "-m", "emca_deploy", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return command


SLOW = pytest.mark.slow


@pytest.mark.parametrize("command", ["build", *(pytest.param(name, marks=SLOW) for name in ("calibrate", "sensitivity", "tune"))])
def test_help_offers_it(run: Callable[..., str], command: str) -> None:
    shown = run(command, "--help")
    assert " toy" in shown
    assert "broken" not in shown


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both distributions are found by this process, as if they had been there when it started."""
    monkeypatch.syspath_prepend(site)
    for name, record in records._by_name().items():
        if name in ("toy", "broken"):
            monkeypatch.setitem(records.BACKENDS, name, record)


@pytest.mark.usefixtures("installed")
def test_it_is_available_and_what_is_wrong_with_the_other_is_said() -> None:
    found = available()
    assert (found["toy"].reason, found["toy"].version) == (None, "1.0")
    assert "its library is too old" in str(found["broken"].reason)


@pytest.mark.slow  # loads every library; the test above and test_doctor.py cover the parts
def test_doctor_sees_it_and_says_what_is_wrong_with_the_other(run: Callable[..., str]) -> None:
    found = json.loads(run("doctor", "--json"))["backends"]
    assert (found["toy"]["usable"], found["toy"]["version"]) == (True, "1.0")
    assert not found["broken"]["usable"]
    assert "its library is too old" in found["broken"]["reason"]


def test_it_runs_in_a_process(run: Callable[..., str], model: Path) -> None:
    document = json.loads(run("profile", f"toy={model}", "--duration", "0.2", "--threads", "1", "--json"))
    assert [result["backend"] for result in document["results"]] == ["toy"]
    assert document["environment"]["versions"]["toy-backend"] == "1.0"


@pytest.mark.usefixtures("installed", "in_threads")  # the test above has it in processes
def test_it_is_validated(model: Path, labelled_images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["validate", model, "--backend", "toy", "--reference", model, "--data", labelled_images, "--json"]
    assert cli.run([str(word) for word in words]) == 0
    assert json.loads(capsys.readouterr().out)["reference"]["agreement"] == 100.0


@pytest.mark.usefixtures("installed", "in_threads")
def test_deploy_calibrates_builds_measures_and_validates_it(
    small_checkpoint: Path, small_networks: Any, flat_images: Path, labelled_images: Path, tmp_path: Path
) -> None:
    quick = ["--image-size", "32", "--resize-size", "40", "--duration", "0.5", "--threads", "1", "--samples", "4", "--limit", "6"]
    where = ["--data", flat_images, "--val", labelled_images, "-o", tmp_path / "out"]
    words = ["deploy", small_checkpoint, *where, "--backend", "toy", "--recover", "none", *quick]
    with small_networks():
        assert cli.run([str(word) for word in words]) == 0
    report = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [candidate["name"] for candidate in report["candidates"]] == ["toy fp32", "toy int8"]
    assert (tmp_path / "out" / "toy-int8.toy").is_file()
    assert report["candidates"][1]["accuracy"]["reference"]["sqnr_db"] > 10
