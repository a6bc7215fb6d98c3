"""A new kind of target needs one file and one line, as CONTRIBUTING.md describes."""

import json

import pytest

from emca_deploy.cli import run
from emca_deploy.targets import registry

FILE = '''
"""A board with a name: its processor, held while a run lasts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.targets.candidates import CandidateOptions, processor_ways
from emca_deploy.targets.cpu import CpuTarget
from emca_deploy.targets.deployment import BuildStep, BuiltCandidate, Deployment, Models
from emca_deploy.targets.local import Held, LocalTarget


@dataclass(frozen=True)
class ToyTarget(LocalTarget):
    kind: ClassVar[str] = "toy"

    @classmethod
    def parse(cls, text: str) -> "ToyTarget":
        return cls(text)

    def ways(self, path: str, backends: Sequence[str], options: CandidateOptions) -> list[RunnerSpec]:
        return [replace(spec, target=self.name) for spec in processor_ways(path, backends, options)]

    @contextmanager
    def hold(self, power_mode: str | None = None) -> Iterator[Held]:
        held = Held({"toy": {"fan": "on"}})
        yield held
        held.record["toy"]["fan"] = "off"

    def deployment(self, backends: Sequence[str] = ()) -> Deployment:
        return replace(CpuTarget().deployment(backends), target=self.name)

    def deployed(self, step: BuildStep, path: Path, models: Models, threads: int | None) -> list[BuiltCandidate]:
        found = CpuTarget().deployed(step, path, models, threads)
        return [replace(one, spec=replace(one.spec, target=self.name)) for one in found]
'''
QUICK = ["--duration", "0.2", "--max-duration", "0.2", "--warmup", "0", "--threads", "1", "--no-telemetry", "--json"]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_target.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.KINDS, "toy", "toy_target:ToyTarget")  # the one line
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", str(tmp_path / "devices.toml"))


@pytest.mark.usefixtures("toy")
def test_it_measures_validates_builds_and_gets_names(model, labelled_images, tmp_path, capsys):
    assert run(["profile", str(model), "--target", "toy", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [result["target"] for result in document["results"]] == ["toy"]
    assert document["environment"]["toy"] == {"fan": "off"}
    assert run(["validate", str(model), "--data", str(labelled_images), "--target", "toy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] > 0
    assert run(["devices", "add", "shelf", "toy:2"]) == 0
    engine = tmp_path / "net.ort.onnx"
    assert run(["build", str(model), "--backend", "onnxruntime", "-o", str(engine), "--target", "shelf", "--json"]) == 0
    assert engine.is_file()


@pytest.mark.usefixtures("toy")
def test_deploy_goes_to_it():
    from emca_deploy.api.parts import find_parts

    (part,) = find_parts(["toy:1"], ["onnxruntime"])
    assert (part.target.name, part.deployment.target) == ("toy:1", "toy:1")
    assert part.deployment.int8_backends == ("onnxruntime",)
